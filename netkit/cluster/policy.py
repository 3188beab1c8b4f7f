"""Roles of the cluster's own parts that Kubernetes does not know. Pure.

The control plane brings them in beside the default roles. Names are the toolkit's own, never below `system:`.
"""

from __future__ import annotations

from controlplane.errors import Object

POD_NETWORK_USER = "netkit:pod-network"
NETWORK_POLICY_USER = "netkit:network-policy"
_GROUP = "rbac.authorization.k8s.io"
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_LABELS = {"app.kubernetes.io/part-of": "kube-netkit"}


def policy() -> tuple[Object, ...]:
    """What each of the parts may do."""
    return (*_pod_network(), *_network_policy())


def _pod_network() -> tuple[Object, Object]:
    """The pod network's agents read all nodes and write what others must know of their own, as flannel's do."""
    return _granted(
        POD_NETWORK_USER,
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    )


def _network_policy() -> tuple[Object, Object]:
    """Those that enforce NetworkPolicies see what decides, and change nothing."""
    verbs = ["list", "watch"]
    return _granted(
        NETWORK_POLICY_USER,
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": verbs},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": verbs},
    )


def _granted(user: str, *rules: Object) -> tuple[Object, Object]:
    """A role and its binding, of the name of the only user who has it."""
    metadata = {"name": user, "labels": _LABELS, "annotations": _ANNOTATIONS}
    role: Object = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": dict(metadata),
        "rules": list(rules),
    }
    binding: Object = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": dict(metadata),
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": _GROUP, "kind": "User", "name": user}],
    }
    return role, binding
