"""The Node authorizer: a kubelet reads what its own pods need, and writes what is its own.

Rules and texts of `plugin/pkg/auth/authorizer/node`, v1.32 (with selectors). What it cannot see (the name of an
object being created, what an update changes) the admission plug-in NodeRestriction checks. Has no opinion about
anybody but nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from controlplane.apiserver.authz.attributes import (
    NO_OPINION,
    NODES,
    Attributes,
    Decision,
    Requirement,
    RulesAnswer,
    Verdict,
)
from controlplane.apiserver.authz.default_policy import node_rules
from controlplane.apiserver.authz.node_graph import NodeGraph
from controlplane.apiserver.authz.rules import Rules, wanted
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.resources.fieldpath import quoted

USER_PREFIX = "system:node:"
LEASES = "kube-node-lease"
_ALLOW = Decision(Verdict.ALLOW)
_OWN_VERBS = frozenset({"create", "delete", "get", "patch", "update"})
_READ = frozenset({"get", "list", "watch"})


def identity(user: UserInfo) -> tuple[str, bool]:
    """The node's name, and whether the user is a node at all (by name prefix and group)."""
    if not user.name.startswith(USER_PREFIX) or NODES not in user.groups:
        return "", False
    return user.name.removeprefix(USER_PREFIX), True


class NodeAuthorizer:
    """See the module. `graph` knows which object is needed where."""

    def __init__(self, graph: NodeGraph) -> None:
        self._graph = graph
        self._rules = Rules(node_rules())
        self._special: dict[tuple[str, str], Callable[[str, Attributes], Decision]] = {
            ("", "secrets"): self._read,
            ("", "configmaps"): self._read,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._get,
            ("storage.k8s.io", "volumeattachments"): self._get,
            ("", "serviceaccounts"): self._token,
            ("coordination.k8s.io", "leases"): _lease,
            ("storage.k8s.io", "csinodes"): _csi_node,
            ("", "nodes"): _node,
            ("", "pods"): self._pod,
        }

    async def authorize(self, attributes: Attributes) -> Decision:
        node, is_node = identity(attributes.user)
        if not is_node:
            return NO_OPINION
        if not node:
            return _no(f"unknown node for user {quoted(attributes.user.name)}")
        info = attributes.info
        if info.is_resource:
            special = self._special.get((info.group, info.resource))
            if special is not None:
                return special(node, attributes)
        return _ALLOW if self._rules.allowing(info, *wanted(info)) is not None else NO_OPINION

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        if identity(user)[1]:
            return RulesAnswer(
                incomplete=True, errors=("node authorizer does not support user rule resolution",)
            )
        return RulesAnswer()

    def _read(self, node: str, attributes: Attributes) -> Decision:
        info = attributes.info
        if info.verb not in _READ:
            return _no("can only read resources of this type")
        if info.subresource:
            return _no("cannot read subresource")
        if not info.namespace:
            return _no("can only read namespaced object of this type")
        return self._related(node, info)

    def _get(self, node: str, attributes: Attributes) -> Decision:
        info = attributes.info
        if info.verb != "get":
            return _no("can only get individual resources of this type")
        if info.subresource:
            return _no("cannot get subresource")
        return self._related(node, info)

    def _claim(self, node: str, attributes: Attributes) -> Decision:
        info = attributes.info
        if info.subresource != "status":
            return self._get(node, attributes)
        if info.verb not in ("update", "patch"):
            return _no("can only get/update/patch this type")
        return self._related(node, info)

    def _token(self, node: str, attributes: Attributes) -> Decision:
        info = attributes.info
        if info.verb != "create" or not info.name:
            return _no("can only create tokens for individual service accounts")
        if info.subresource != "token":
            return _no("can only create token subresource of serviceaccount")
        return self._related(node, info)

    def _pod(self, node: str, attributes: Attributes) -> Decision:
        info = attributes.info
        if not info.subresource:
            if info.verb == "get":
                return self._get(node, attributes)
            if info.verb in ("list", "watch"):
                if any(_is_own(requirement, node) for requirement in attributes.fields):
                    return _ALLOW
                if info.name:
                    return self._related(node, info)
                return _no("can only list/watch pods with spec.nodeName field selector")
            return _ALLOW if info.verb in ("create", "delete") else NO_OPINION
        allowed = {"status": ("update", "patch"), "eviction": ("create",)}.get(info.subresource, ())
        return _ALLOW if info.verb in allowed else NO_OPINION

    def _related(self, node: str, info: RequestInfo) -> Decision:
        if not info.name:
            return _no("No Object name found")
        if self._graph.needs(node, info.resource, info.namespace, info.name):
            return _ALLOW
        return _no(f"no relationship found between node '{node}' and this object")


def _is_own(requirement: Requirement, node: str) -> bool:
    return requirement == Requirement("spec.nodeName", "In", (node,))


def _no(reason: str) -> Decision:
    return Decision(Verdict.NO_OPINION, reason)


def _lease(node: str, attributes: Attributes) -> Decision:
    info = attributes.info
    if info.verb not in _OWN_VERBS:
        return _no("can only get, create, update, patch, or delete a node lease")
    if info.namespace != LEASES:
        return _no(f'can only access leases in the "{LEASES}" system namespace')
    if info.verb != "create" and info.name != node:
        return _no("can only access node lease with the same name as the requesting node")
    return _ALLOW


def _csi_node(node: str, attributes: Attributes) -> Decision:
    info = attributes.info
    if info.verb not in _OWN_VERBS:
        return _no("can only get, create, update, patch, or delete a CSINode")
    if info.subresource:
        return _no("cannot authorize CSINode subresources")
    if info.verb != "create" and info.name != node:
        return _no("can only access CSINode with the same name as the requesting node")
    return _ALLOW


def _node(node: str, attributes: Attributes) -> Decision:
    info = attributes.info
    if info.subresource == "status":
        return _ALLOW if info.verb in ("update", "patch") else NO_OPINION
    if info.subresource:
        return NO_OPINION
    if info.verb in ("create", "update", "patch"):
        return _ALLOW
    if info.verb not in _READ:
        return NO_OPINION
    if info.name == node:
        return _ALLOW
    if not info.name:
        return _no(f"node '{node}' cannot read all nodes, only its own Node object")
    return _no(f"node '{node}' cannot read '{info.name}', only its own Node object")
