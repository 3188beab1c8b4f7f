"""TaintNodesByCondition and ExtendedResourceToleration: new nodes take no pods before they are ready; pods that ask
for a device tolerate the nodes set aside for it.
"""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_DEFAULT_DOMAIN = "kubernetes.io/"
_REQUEST_PREFIX = "requests."


class TaintNodesByCondition:
    """See `plugin.AdmissionPlugin`. A controller takes the taint away when the node is ready."""

    async def admit(self, request: AdmissionRequest) -> None:
        node = request.obj
        if node is None or not request.concerns("", "nodes", Operation.CREATE):
            return
        taints = node["spec"].get("taints") or []
        if not any((taint.get("key"), taint.get("effect")) == tuple(NOT_READY.values()) for taint in taints):
            node["spec"]["taints"] = [*taints, dict(NOT_READY)]


class ExtendedResourceToleration:
    """See `plugin.AdmissionPlugin`. Off by default, as upstream."""

    async def admit(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None or not (
            request.concerns("", "pods", Operation.CREATE) or request.concerns("", "pods", Operation.UPDATE)
        ):
            return
        spec = pod["spec"]
        wanted = {
            resource
            for part in ("containers", "initContainers")
            for container in spec.get(part) or ()
            for resource in (container.get("resources") or {}).get("requests") or ()
            if _is_extended(resource)
        }
        tolerations = list(spec.get("tolerations") or ())
        missing = [
            toleration
            for resource in sorted(wanted)
            if (toleration := _toleration(resource)) not in tolerations
        ]
        if missing:
            spec["tolerations"] = [*tolerations, *missing]


def _toleration(resource: str) -> Object:
    return {"key": resource, "operator": "Exists"}


def _is_extended(resource: str) -> bool:
    """A resource of somebody's own domain: a device."""
    native = "/" not in resource or _DEFAULT_DOMAIN in resource
    return not native and not resource.startswith(_REQUEST_PREFIX)
