"""pods/eviction: a deletion that asks the pod's disruption budget first, as upstream's eviction REST (v1.32).

The budget is charged before the pod is deleted, by compare-and-swap on its status, so that concurrent evictions never
take more pods than it allows.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.deletion import delete
from controlplane.apiserver.registry.deletion_rules import check_preconditions
from controlplane.apiserver.registry.listing import get_object, list_objects
from controlplane.apiserver.registry.requests import DeleteOptions, ListOptions, WriteOptions
from controlplane.apiserver.registry.updating import Scope, Target, modify
from controlplane.errors import Cause, Conflict, Forbidden, Object, TooManyRequests, Unclassified
from controlplane.meta import conditions
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import clone, is_being_deleted, labels, name, resource_version
from controlplane.meta.pods import is_finished, is_ready, phase
from controlplane.meta.timestamps import format_time
from controlplane.resources.catalog import POD, POD_DISRUPTION_BUDGET

CAUSE = "DisruptionBudget"
_MOST_DISRUPTED = 2000
_CONFLICTS = 20
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
_PLURAL = "poddisruptionbudget"


async def evict(ctx: Context, namespace: str, pod_name: str, opts: DeleteOptions) -> None:
    """Raises TooManyRequests when the budget does not allow it, Forbidden, NotFound, Conflict."""
    for _ in range(_CONFLICTS):
        pod = (await get_object(ctx, POD, namespace, pod_name, "")).object
        if not _needs_no_budget(pod):
            break
        # Whoever is about to run must not become ready meanwhile.
        pinned = _pinned(opts, pod) if _may_become_ready(pod) else opts
        try:
            await _mark_and_delete(ctx, namespace, pod_name, pinned)
        except Conflict:
            if opts.resource_version:
                raise
            continue
        return
    budget = await _budget_of(ctx, pod)
    pinned = opts
    if budget is not None:
        if _is_free(pod, budget):
            pinned = _pinned(opts, pod)
        else:
            await _charge(ctx, budget, pod_name, opts)
    try:
        await _mark_and_delete(ctx, namespace, pod_name, pinned)
    except Conflict as conflict:
        if pinned is not opts and budget is not None:
            raise _still_processing(name(budget)) from conflict
        raise


def _needs_no_budget(pod: Object) -> bool:
    return is_finished(pod) or phase(pod) == "Pending" or is_being_deleted(pod)


def _may_become_ready(pod: Object) -> bool:
    return not is_finished(pod) and not is_being_deleted(pod)


def _pinned(opts: DeleteOptions, pod: Object) -> DeleteOptions:
    """The deletion holds only for the pod as it is now, unless the client said for which."""
    return opts if opts.resource_version else replace(opts, resource_version=str(resource_version(pod)))


async def _budget_of(ctx: Context, pod: Object) -> Object | None:
    """The one budget that selects the pod. Raises Unclassified when there are several."""
    await ctx.storage.ready(POD_DISRUPTION_BUDGET)
    listed = await list_objects(ctx, POD_DISRUPTION_BUDGET, pod["metadata"]["namespace"], ListOptions())
    found = [stored.object for stored in listed.items if _selects(stored.object, pod)]
    if len(found) > 1:
        raise Unclassified(_SEVERAL)
    return found[0] if found else None


def _selects(budget: Object, pod: Object) -> bool:
    """A budget without a selector, or with one that cannot be, selects nothing."""
    try:
        selector = LabelSelector.from_object(budget["spec"].get("selector"))
    except ValueError:
        return False
    if budget["spec"].get("selector") is None or selector.empty:
        return False
    return selector.matches(labels(pod))


def _is_free(pod: Object, budget: Object) -> bool:
    """Whether the pod counts for nothing in the budget because it is not ready."""
    if is_ready(pod):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return bool(desired > 0 and status.get("currentHealthy", 0) >= desired)


async def _charge(ctx: Context, budget: Object, pod_name: str, opts: DeleteOptions) -> None:
    """One disruption less. Raises TooManyRequests, Forbidden."""
    target = Target(
        POD_DISRUPTION_BUDGET, budget["metadata"]["namespace"], name(budget), Scope.STATUS, "status"
    )
    write = WriteOptions(dry_run=opts.dry_run, user=opts.user, remarks=opts.remarks)
    await modify(ctx, target, lambda current: charged(current, pod_name, ctx.clock()), write)


def charged(budget: Object, pod_name: str, now: datetime) -> Object:
    """The budget with one disruption less and the pod among those under way. Pure. Raises as `evict`."""
    status = budget.get("status") or {}
    metadata = budget["metadata"]
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        raise _still_processing(name(budget))
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise _forbidden(budget, "pdb disruptions allowed is negative")
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > _MOST_DISRUPTED:
        raise _forbidden(
            budget, "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        )
    if allowed == 0:
        needed, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        text = f"The disruption budget {name(budget)} needs {needed} healthy pods and has {healthy} currently"
        raise TooManyRequests(_REFUSED, causes=[Cause(CAUSE, text, "")])
    result = clone(budget)
    new = result["status"]
    new["disruptionsAllowed"] = allowed - 1
    new["disruptedPods"] = {**disrupted, pod_name: format_time(now)}
    if allowed == 1:
        new["conditions"] = conditions.with_condition(
            new.get("conditions"),
            {
                "type": "DisruptionAllowed",
                "status": "False",
                "observedGeneration": new.get("observedGeneration", 0),
                "lastTransitionTime": format_time(now),
                "reason": "InsufficientPods",
                "message": "",
            },
        )
    return result


def _forbidden(budget: Object, why: str) -> Forbidden:
    title = f'{_PLURAL}.policy "{name(budget)}" is forbidden: {why}'
    return Forbidden(title, name=name(budget), group="policy", kind=_PLURAL)


def _still_processing(budget: str) -> TooManyRequests:
    text = f"The disruption budget {budget} is still being processed by the server."
    return TooManyRequests(_REFUSED, causes=[Cause(CAUSE, text, "")], retry_after=10)


async def _mark_and_delete(ctx: Context, namespace: str, pod_name: str, opts: DeleteOptions) -> None:
    """Say in the pod's status why it ends, then delete it."""
    if not opts.dry_run:

        def marked(pod: Object) -> Object:
            check_preconditions(POD, pod_name, pod, opts)
            result = clone(pod)
            status = result.setdefault("status", {})
            status["conditions"] = conditions.with_condition(
                status.get("conditions"),
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "lastProbeTime": None,
                    "lastTransitionTime": format_time(ctx.clock()),
                    "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting",
                },
            )
            return result

        target = Target(POD, namespace, pod_name, Scope.STATUS, "status")
        write = WriteOptions(user=opts.user, remarks=opts.remarks)
        stored = await modify(ctx, target, marked, write)
        if opts.resource_version:
            opts = replace(opts, resource_version=str(resource_version(stored.object)))
    await delete(ctx, POD, namespace, pod_name, opts)
