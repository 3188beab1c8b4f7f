"""NetworkPolicies on a whole cluster, by kubectl: who is let in, and who is not."""

from __future__ import annotations

from support.cluster import eventually
from support.space import Space

SERVERS = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: registry.k8s.io/e2e-test-images/agnhost:2.53
    args: [netexec]
    ports: [{{containerPort: 8080, name: web}}]
    readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
---
"""
SHELL = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: busybox, command: [sleep, infinity]}}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: web}]}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: web}]
"""


def test_a_policy_lets_in_whom_it_names(lab: Space) -> None:
    lab.apply(
        SERVERS.format(name="web", app="web", node="node1")
        + SHELL.format(name="friend", app="friend", node="node2")
        + SHELL.format(name="neighbour", app="friend", node="node1")
        + SHELL.format(name="stranger", app="stranger", node="node1")
        + SHELL.format(name="far-stranger", app="stranger", node="node2")
        + SERVICE
    )
    web = lab.ready("web")["status"]["podIP"]
    everybody = ("friend", "neighbour", "stranger", "far-stranger")
    for name in everybody:
        lab.ready(name)

    def reach(name: str, host: str, port: int = 8080) -> bool:
        return lab.sh(name, f"curl -s -m 1 http://{host}:{port}/hostname || true") == "web"

    def reached_by(host: str = web, port: int = 8080) -> list[str]:
        return [name for name in everybody if reach(name, host, port)]

    eventually("everybody reaches it", lambda: reached_by() == list(everybody))
    lab.apply(POLICY)
    eventually("only friends reach it", lambda: reached_by() == ["friend", "neighbour"])
    service = lab.get("service", "web")["spec"]["clusterIP"]
    assert reached_by(service, 80) == ["friend", "neighbour"]
    # The kubelet's probes come from the node, which no policy keeps out.
    assert lab.ready("web")["status"]["podIP"] == web

    # A label decides at once, and a new pod is isolated before it can be called.
    lab.kubectl("label", "pod", "stranger", "app=friend", "--overwrite")
    eventually("the stranger is a friend now", lambda: reach("stranger", web))
    lab.apply(SERVERS.format(name="second", app="web", node="node2"))
    second = lab.ready("second")["status"]["podIP"]
    assert lab.sh("far-stranger", f"curl -s -m 1 http://{second}:8080/hostname || true") == ""
    assert lab.sh("friend", f"curl -s -m 1 http://{second}:8080/hostname || true") == "second"

    rules = lab.cluster.on("node1", "nft", "list", "table", "ip", "netkit-policy")
    assert f'comment "{lab.name}/friends ingress rule 1"' in rules
    lab.kubectl("delete", "networkpolicy", "friends")
    eventually("everybody reaches it again", lambda: reached_by() == list(everybody))
    tables = lab.cluster.on("node1", "nft", "list", "tables")
    assert "netkit-policy" not in tables
