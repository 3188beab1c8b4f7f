"""DefaultTolerationSeconds: a pod stays for a while on a node that is not ready or unreachable."""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"


class DefaultTolerations:
    """See `plugin.AdmissionPlugin`. Seconds before an eviction; pods that say so themselves are left alone."""

    def __init__(self, not_ready_seconds: int = 300, unreachable_seconds: int = 300) -> None:
        self._seconds = {NOT_READY: not_ready_seconds, UNREACHABLE: unreachable_seconds}

    async def admit(self, request: AdmissionRequest) -> None:
        kind = request.kind
        if request.operation is not Operation.CREATE or (kind.group, kind.plural) != ("", "pods"):
            return
        if request.obj is None or request.subresource:
            return
        spec = request.obj.setdefault("spec", {})
        tolerations = list(spec.get("tolerations") or ())
        missing = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            for key, seconds in self._seconds.items()
            if not any(_tolerates(toleration, key) for toleration in tolerations)
        ]
        if missing:
            spec["tolerations"] = [*tolerations, *missing]


def _tolerates(toleration: Object, key: str) -> bool:
    return toleration.get("key", "") in (key, "") and toleration.get("effect", "") in ("NoExecute", "")
