"""Pods reach the API through its ClusterIP, with the token and the certificate that are mounted in them."""

from __future__ import annotations

import json
from typing import Any

import jwt
from support.cluster import eventually
from support.space import Space

POD = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  serviceAccountName: robot
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: alicek106/rr-test:curl, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
"""
FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
ASK = (
    f'curl -sS --cacert {FOLDER}/ca.crt -H "Authorization: Bearer $(cat {FOLDER}/token)" '
    "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT"
)


def ask(lab: Space, path: str) -> Any:
    return json.loads(lab.kubectl("exec", "client", "--", "sh", "-c", ASK + path))


def test_a_pod_asks_the_api_server(lab: Space) -> None:
    lab.apply(POD)
    pod = lab.ready("client")
    assert ask(lab, "/version")["major"] == "1"
    path = f"/api/v1/namespaces/{lab.name}/secrets"
    refused = ask(lab, path)
    user = f"system:serviceaccount:{lab.name}:robot"
    assert refused["code"] == 403
    assert f'User "{user}" cannot list resource "secrets"' in refused["message"]
    token = lab.kubectl("exec", "client", "--", "cat", f"{FOLDER}/token")
    claims = jwt.decode(token, options={"verify_signature": False})
    bound = claims["kubernetes.io"]
    assert bound["pod"] == {"name": "client", "uid": pod["metadata"]["uid"]}
    assert bound["node"]["name"] == pod["spec"]["nodeName"]
    assert lab.kubectl("exec", "client", "--", "cat", f"{FOLDER}/namespace") == lab.name
    nobody = lab.kubectl(
        "exec", "client", "--", "sh", "-c",
        f"curl -s --cacert {FOLDER}/ca.crt -H 'Authorization: Bearer x' https://$KUBERNETES_SERVICE_HOST/version",
    )  # fmt: skip
    assert json.loads(nobody)["code"] == 401
    lab.ready("plain")
    assert lab.run("exec", "plain", "--", "ls", FOLDER).returncode != 0

    # The token dies with the pod.
    lab.kubectl("delete", "pod", "client", "--wait=true")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}

    def invalidated() -> bool:
        answer = lab.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review))
        return "invalidated" in json.loads(answer)["status"].get("error", "")

    eventually("the token is refused", invalidated)
