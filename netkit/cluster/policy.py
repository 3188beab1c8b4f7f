"""Roles of the cluster's own parts that Kubernetes does not know. Pure.

The control plane brings them in beside the default roles. Names are the toolkit's own, never below `system:`.
"""

from __future__ import annotations

from controlplane.errors import Object

POD_NETWORK_USER = "netkit:pod-network"
_GROUP = "rbac.authorization.k8s.io"
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_LABELS = {"app.kubernetes.io/part-of": "kube-netkit"}


def policy() -> tuple[Object, ...]:
    """The pod network's agents read all nodes and write what others must know of their own, as flannel's do."""
    metadata = {"name": POD_NETWORK_USER, "labels": _LABELS, "annotations": _ANNOTATIONS}
    role: Object = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": dict(metadata),
        "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        ],
    }
    binding: Object = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": dict(metadata),
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": POD_NETWORK_USER},
        "subjects": [{"apiGroup": _GROUP, "kind": "User", "name": POD_NETWORK_USER}],
    }
    return role, binding
