"""Authorization of a whole cluster, as `netkit auth` and kubectl tell it."""

from __future__ import annotations

import json
from typing import Any

from support.cluster import Cluster, eventually
from support.space import Space


def explain(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    result = cluster.netkit("auth", "explain", "-p", cluster.name, "-o", "json", *arguments, check=False)
    value: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (0 if value["allowed"] else 1)
    return value


def test_explanations(cluster: Cluster) -> None:
    assert explain(cluster, "kubernetes-admin", "delete", "nodes", "node1")["authorizer"] == "system:masters"
    proxy = explain(cluster, "system:kube-proxy", "watch", "endpointslices", "-A")
    assert (proxy["authorizer"], proxy["binding"]["name"]) == ("RBAC", "system:node-proxier")
    refused = explain(cluster, "system:kube-proxy", "get", "secrets", "x")
    assert [opinion["authorizer"] for opinion in refused["opinions"]] == ["Node", "RBAC"]
    own = explain(
        cluster, "system:node:node1", "list", "pods", "-A", "--field-selector", "spec.nodeName=node1"
    )
    assert own["authorizer"] == "Node"
    other = explain(cluster, "system:node:node1", "get", "nodes", "node2")
    assert other["opinions"][0]["reason"] == "node 'node1' cannot read 'node2', only its own Node object"


def test_a_binding_counts_at_once(lab: Space) -> None:
    cluster = lab.cluster
    asked = ("bob", "get", "pods", "x", "-n", lab.name)
    assert not explain(cluster, *asked)["allowed"]
    lab.kubectl("create", "rolebinding", "bob", "--clusterrole=view", "--user=bob")
    found = explain(cluster, *asked)
    assert (found["binding"]["name"], found["binding"]["role"]["name"]) == ("bob", "view")
    listed = cluster.netkit("auth", "who-can", "-p", cluster.name, "get", "pods", "-n", lab.name).stdout
    assert "RoleBinding" in listed
    assert "bob" in listed
    refused = lab.kubectl("get", "secrets", "--as=bob", check=False)
    assert 'User "bob" cannot list resource "secrets"' in refused


def test_a_node_reads_the_secrets_of_its_pods_only(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Secret
metadata: {name: needed}
stringData: {key: value}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  nodeName: node1
  containers:
  - {name: c, image: nginx, env: [{name: KEY, valueFrom: {secretKeyRef: {name: needed, key: key}}}]}
"""
    )
    eventually("it runs", lambda: lab.get("pod", "reader")["status"].get("phase") == "Running")
    for node, allowed in (("node1", True), ("node2", False)):
        asked = explain(lab.cluster, f"system:node:{node}", "get", "secrets", "needed", "-n", lab.name)
        assert asked["allowed"] is allowed, asked
