"""The checks the level `restricted` adds to `baseline`, in the words of v1.32. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.apiserver.admission.pod_security import baseline
from controlplane.apiserver.admission.pod_security.findings import (
    CheckPod,
    Finding,
    PodView,
    named,
    plural,
    quoted_list,
    security_of,
    setters,
)

_VOLUMES = frozenset(
    {
        "configMap", "downwardAPI", "emptyDir", "projected", "secret", "csi", "persistentVolumeClaim", "ephemeral",
        "image",
    }
)  # fmt: skip


def _not_windows(check: CheckPod) -> CheckPod:
    """Since 1.25 some checks do not concern pods that say they are for Windows."""
    return lambda pod: None if pod.is_windows else check(pod)


def allow_privilege_escalation(pod: PodView) -> Finding | None:
    containers = [
        item["name"]
        for item in pod.containers()
        if security_of(item).get("allowPrivilegeEscalation") is not False
    ]
    if not containers:
        return None
    return Finding(
        "allowPrivilegeEscalation != false",
        f"{named(containers)} must set securityContext.allowPrivilegeEscalation=false",
    )


def capabilities(pod: PodView) -> Finding | None:
    without_drop: list[str] = []
    adding: list[str] = []
    forbidden: set[str] = set()
    for item in pod.containers():
        caps = security_of(item).get("capabilities") or {}
        if "ALL" not in (caps.get("drop") or ()):
            without_drop.append(item["name"])
        beyond = set(caps.get("add") or ()) - {"NET_BIND_SERVICE"}
        if beyond:
            adding.append(item["name"])
            forbidden |= beyond
    details = []
    if without_drop:
        details.append(f'{named(without_drop)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        caps_text = quoted_list(sorted(forbidden))
        details.append(f"{named(adding)} must not include {caps_text} in securityContext.capabilities.add")
    return Finding("unrestricted capabilities", "; ".join(details)) if details else None


def volumes(pod: PodView) -> Finding | None:
    names: list[str] = []
    kinds: set[str] = set()
    for volume in pod.spec.get("volumes") or ():
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        if any(source in _VOLUMES for source in sources):
            continue
        names.append(volume["name"])
        kinds.add(sources[0] if sources else "unknown")
    if not names:
        return None
    volume_word = plural("volume", "volumes", len(names))
    uses = plural("uses", "use", len(names))
    type_word = plural("type", "types", len(kinds))
    return Finding(
        "restricted volume types",
        f"{volume_word} {quoted_list(names)} {uses} restricted volume {type_word} {quoted_list(sorted(kinds))}",
    )


def run_as_non_root(pod: PodView) -> Finding | None:
    by_pod = pod.security.get("runAsNonRoot")
    explicit = [item["name"] for item in pod.containers() if security_of(item).get("runAsNonRoot") is False]
    who = setters(by_pod is False, explicit)
    if who:
        return Finding("runAsNonRoot != true", f"{who} must not set securityContext.runAsNonRoot=false")
    if by_pod:
        return None
    implicit = [item["name"] for item in pod.containers() if security_of(item).get("runAsNonRoot") is None]
    if not implicit:
        return None
    return Finding(
        "runAsNonRoot != true", f"pod or {named(implicit)} must set securityContext.runAsNonRoot=true"
    )


def run_as_user(pod: PodView) -> Finding | None:
    containers = [item["name"] for item in pod.containers() if security_of(item).get("runAsUser") == 0]
    who = setters(pod.security.get("runAsUser") == 0, containers)
    return Finding("runAsUser=0", f"{who} must not set runAsUser=0") if who else None


def seccomp(pod: PodView) -> Finding | None:
    explicit = baseline.seccomp(pod)
    if explicit is not None:
        return explicit
    if pod.security.get("seccompProfile"):
        return None
    implicit = [item["name"] for item in pod.containers() if not security_of(item).get("seccompProfile")]
    if not implicit:
        return None
    return Finding(
        "seccompProfile",
        f"pod or {named(implicit)} must set securityContext.seccompProfile.type to "
        '"RuntimeDefault" or "Localhost"',
    )


CHECKS: Mapping[str, Mapping[int, CheckPod]] = {
    "allowPrivilegeEscalation": {
        8: allow_privilege_escalation, 25: _not_windows(allow_privilege_escalation),
    },
    "capabilities_restricted": {22: capabilities, 25: _not_windows(capabilities)},
    "restrictedVolumes": {0: volumes},
    "runAsNonRoot": {0: run_as_non_root},
    "runAsUser": {23: run_as_user},
    "seccompProfile_restricted": {19: seccomp, 25: _not_windows(seccomp)},
}  # fmt: skip
"""By id, then by the first minor version it is in force in that form."""

REPLACES: Mapping[str, str] = {
    "capabilities_restricted": "capabilities_baseline",
    "restrictedVolumes": "hostPathVolumes",
    "seccompProfile_restricted": "seccompProfile_baseline",
}
"""The check of `baseline` that is not made beside one of these."""
