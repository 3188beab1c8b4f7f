"""Priority: a pod's priority follows from its PriorityClass; only one class is the default of all pods."""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.resources.scheduling import PREEMPT, SYSTEM_CLASSES

GROUP, PLURAL = "scheduling.k8s.io", "priorityclasses"


class Priority:
    """See `plugin.AdmissionPlugin` and `plugin.ValidatingPlugin`."""

    async def admit(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None:
            return
        if request.concerns("", "pods", Operation.CREATE):
            await self._resolve(request, pod)
        elif request.concerns("", "pods", Operation.UPDATE):
            self._keep(pod, request.old or {})

    async def validate(self, request: AdmissionRequest) -> None:
        if request.concerns(GROUP, PLURAL, Operation.DELETE) and request.name in SYSTEM_CLASSES:
            raise request.forbid("this is a system priority class and cannot be deleted")
        priority_class = request.obj
        if priority_class is None or not request.concerns(GROUP, PLURAL, Operation.CREATE, Operation.UPDATE):
            return
        if priority_class.get("globalDefault"):
            default = await self._default_class(request)
            if default is not None and name(default) != name(priority_class):
                raise request.forbid(
                    f"PriorityClass {name(default)} is already marked as default. Only one default can exist"
                )

    async def _resolve(self, request: AdmissionRequest, pod: Object) -> None:
        spec = pod["spec"]
        wanted = spec.get("priorityClassName")
        if wanted:
            found = await request.lookup(GROUP, PLURAL, "", wanted)
            if found is None:
                raise request.forbid(f"no PriorityClass with name {wanted} was found")
        else:
            found = await self._default_class(request)
            if found is not None:
                spec["priorityClassName"] = name(found)
        priority = 0 if found is None else found.get("value", 0)
        policy = PREEMPT if found is None else found.get("preemptionPolicy") or PREEMPT
        if spec.get("priority") is not None and spec["priority"] != priority:
            raise request.forbid(
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority "
                f"admission controller computed {priority} from the given PriorityClass name"
            )
        spec["priority"] = priority
        if spec.get("preemptionPolicy") is not None and spec["preemptionPolicy"] != policy:
            raise request.forbid(
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name"
            )
        spec["preemptionPolicy"] = policy

    def _keep(self, pod: Object, old: Object) -> None:
        """An update that leaves them out means them as before."""
        spec, before = pod.get("spec") or {}, old.get("spec") or {}
        for field in ("priority", "preemptionPolicy"):
            if spec.get(field) is None and before.get(field) is not None:
                spec[field] = before[field]

    async def _default_class(self, request: AdmissionRequest) -> Object | None:
        """The class of pods that name none; should two claim to be it, the one of the lower value."""
        classes = await request.listing(GROUP, PLURAL, "")
        marked = [found for found in classes if found.get("globalDefault")]
        return min(marked, key=lambda found: (found.get("value", 0), name(found)), default=None)
