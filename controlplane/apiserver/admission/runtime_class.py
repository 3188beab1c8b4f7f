"""RuntimeClass: a pod gets the overhead and the choice of nodes of the runtime it names."""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.resources.rules import same


class RuntimeClassAdmission:
    """See `plugin.AdmissionPlugin` and `plugin.ValidatingPlugin`."""

    async def admit(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None or not request.concerns("", "pods", Operation.CREATE):
            return
        spec = pod["spec"]
        runtime_class = await self._class_of(request, spec)
        if runtime_class is None:
            return
        overhead = dig(runtime_class, "overhead", "podFixed")
        if runtime_class.get("overhead") is not None:
            if spec.get("overhead") and not same(spec["overhead"], overhead):
                raise request.forbid(
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
                )
            if overhead:
                spec["overhead"] = dict(overhead)
        scheduling = runtime_class.get("scheduling")
        if scheduling:
            self._schedule(request, spec, scheduling)

    async def validate(self, request: AdmissionRequest) -> None:
        """What other plug-ins made of the pod after this one."""
        pod = request.obj
        if pod is None or not request.concerns("", "pods", Operation.CREATE):
            return
        runtime_class = await self._class_of(request, pod["spec"])
        given = pod["spec"].get("overhead")
        if runtime_class is None or runtime_class.get("overhead") is None:
            if given:
                raise request.forbid(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                )
        elif not same(given, dig(runtime_class, "overhead", "podFixed")):
            raise request.forbid("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")

    async def _class_of(self, request: AdmissionRequest, spec: Object) -> Object | None:
        wanted = spec.get("runtimeClassName")
        if wanted is None:
            return None
        found = await request.lookup("node.k8s.io", "runtimeclasses", "", wanted)
        if found is None:
            raise request.forbid(f'pod rejected: RuntimeClass "{wanted}" not found')
        return found

    def _schedule(self, request: AdmissionRequest, spec: Object, scheduling: Object) -> None:
        own, given = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
        if any(given.get(key, value) != value for key, value in own.items()):
            raise request.forbid(
                "pod rejected: conflict: runtimeClass.scheduling.nodeSelector and pod.spec.nodeSelector have "
                "different values for the same key"
            )
        if own:
            spec["nodeSelector"] = {**given, **own}
        tolerations = list(spec.get("tolerations") or ())
        missing = [one for one in scheduling.get("tolerations") or () if one not in tolerations]
        if missing:
            spec["tolerations"] = [*tolerations, *missing]
