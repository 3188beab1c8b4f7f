"""NamespaceLifecycle: nothing is created in a namespace that is missing or going away; some namespaces stay."""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Cause, Forbidden, not_found

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle:
    """See `plugin.AdmissionPlugin`. `immortal` namespaces may not be deleted."""

    def __init__(self, immortal: frozenset[str] = IMMORTAL) -> None:
        self._immortal = immortal

    async def admit(self, request: AdmissionRequest) -> None:
        is_namespace = request.kind.group == "" and request.kind.plural == "namespaces"
        if request.operation is Operation.DELETE and is_namespace and request.name in self._immortal:
            raise request.forbid("this namespace may not be deleted")
        if request.operation is not Operation.CREATE or not request.namespace or is_namespace:
            return
        namespace = await request.lookup("", "namespaces", "", request.namespace)
        if namespace is None:
            raise not_found("namespaces", "", request.namespace)
        if namespace["metadata"].get("deletionTimestamp"):
            raise _terminating(request)


def _terminating(request: AdmissionRequest) -> Forbidden:
    error = request.forbid(
        f"unable to create new content in namespace {request.namespace} because it is being terminated"
    )
    cause = Cause(
        "NamespaceTerminating", f"namespace {request.namespace} is being terminated", "metadata.namespace"
    )
    return Forbidden(error.message, name=error.name, group=error.group, kind=error.kind, causes=[cause])
