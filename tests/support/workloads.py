"""Manifests of pods and Deployments that tests fill in."""

from __future__ import annotations

IMAGE = "alicek106/rr-test:echo-hostname"
"""Answers on port 80 with its host name."""


def busybox(name: str, script: str, *, policy: str = "Always", more: str = "", labels: str = "") -> str:
    """A pod of one busybox container `main` that runs a shell script; `more` are further fields of the container."""
    lines = "".join(f"\n    {line}" for line in more.splitlines())
    body = "".join(f"\n      {line}" for line in script.splitlines())
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}{labels}}}}}
spec:
  restartPolicy: {policy}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c]
    args:
    - |{body}{lines}
"""


def pod(name: str, spec: str = "", image: str = "registry.k8s.io/pause:3.9", container: str = "") -> str:
    more = f", {container}" if container else ""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  {spec or "{}"}
  containers: [{{name: main, image: "{image}"{more}}}]
""".replace("\n  {}\n", "\n")


def deployment(
    name: str = "web", replicas: int = 3, more: str = "", pod: str = "", image: str = IMAGE
) -> str:
    """A Deployment; `more` are further fields of its spec, `pod` of its pods' spec, one on each line."""
    fields = "".join(f"\n  {line}" for line in more.splitlines())
    pod_fields = "".join(f"\n      {line}" for line in pod.splitlines())
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}{fields}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1{pod_fields}
      containers:
      - {{name: web, image: "{image}", ports: [{{containerPort: 80}}]}}
"""
