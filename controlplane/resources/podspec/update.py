"""What an update of a pod may change (upstream's `ValidatePodUpdate`, v1.32): images, tolerations by
addition, the active deadline downwards, and a few things of a pod that its scheduling gates still hold.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.errors import Cause, Object
from controlplane.meta.objects import clone
from controlplane.resources.fieldpath import shown
from controlplane.resources.rules import MAX_INT32, Field, range_error, same

_UPDATABLE = ",".join(
    (
        "`spec.containers[*].image`",
        "`spec.initContainers[*].image`",
        "`spec.activeDeadlineSeconds`",
        "`spec.tolerations` (only additions to existing tolerations)",
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )
)


def validate_pod_update(new: Object, old: Object) -> Sequence[Cause]:
    """Faults of changing the pod `old` to `new`, by any path but its subresources."""
    if new.get("spec") == old.get("spec"):
        return ()
    field, before = Field.root(new), Field.root(old)
    spec, old_spec = field["spec"], before["spec"]
    for name in ("containers", "initContainers"):
        if len(spec[name]) != len(old_spec[name]):
            spec[name].forbidden("pod updates may not add or remove containers")
            return field.causes
    _deadline(spec["activeDeadlineSeconds"], old_spec["activeDeadlineSeconds"])
    _tolerations(spec["tolerations"], old_spec["tolerations"])
    gated = bool(len(old_spec["schedulingGates"]))
    _gates(spec["schedulingGates"], old_spec["schedulingGates"])
    allowed = _with_allowed_changes(new.get("spec") or {}, old.get("spec") or {}, gated=gated)
    changes = list(differences(old.get("spec") or {}, allowed, "spec"))
    if changes:
        listed = "\n".join(changes)
        spec.forbidden(f"pod updates may not change fields other than {_UPDATABLE}\n{listed}\n")
    return field.causes


def _deadline(deadline: Field, before: Field) -> None:
    if deadline.value is not None:
        if not 0 <= deadline.value <= MAX_INT32:
            deadline.invalid(range_error(0, MAX_INT32))
        elif before.value is not None and deadline.value > before.value:
            deadline.invalid("must be less than or equal to previous value")
    elif before.value is not None:
        # A message shows an absent value as empty text; Go shows a nil pointer as "null".
        deadline.of("null").invalid("must not update from a positive integer to nil value")


def _tolerations(tolerations: Field, before: Field) -> None:
    """Old ones stay, though those of NoExecute may get another `tolerationSeconds`; new ones may come."""
    now = [_without_seconds(item.value) for item in tolerations]
    for toleration in before:
        if _without_seconds(toleration.value) not in now:
            tolerations.forbidden("existing toleration can not be modified except its tolerationSeconds")
            return


def _without_seconds(toleration: Object) -> Object:
    return {name: value for name, value in toleration.items() if name != "tolerationSeconds" and value}


def _gates(gates: Field, before: Field) -> None:
    old_names = {gate["name"].text for gate in before}
    for gate in gates:
        if gate["name"].text not in old_names:
            gate.forbidden(
                "only deletion is allowed, but found new scheduling gate '" + gate["name"].text + "'"
            )


def _with_allowed_changes(new: Object, old: Object, *, gated: bool) -> Object:
    """The new spec with everything that may change put back to what it was."""
    munged = clone(new)
    for name in ("containers", "initContainers"):
        for container, before in zip(munged.get(name) or (), old.get(name) or (), strict=True):
            container["image"] = before.get("image")
    names = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if (
        munged.get("terminationGracePeriodSeconds") == 1
        and (old.get("terminationGracePeriodSeconds") or 0) < 0
    ):
        names.append("terminationGracePeriodSeconds")
    if gated:
        # A pod that waits for its gates may still be steered to fewer nodes.
        names += ["nodeSelector", "affinity"]
    for name in names:
        munged[name] = old.get(name)
    return munged


def differences(old: object, new: object, path: str) -> Iterator[str]:
    """One line for each place where the two differ: `spec.nodeName: "a" -> "b"`."""
    if same(old, new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{path}.{name}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{path}[{position}]")
    else:
        yield f"  {path}: {shown(old)} -> {shown(new)}"
