"""Which checks are in force at a level and version, and what they say of a pod. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from controlplane.apiserver.admission.pod_security import baseline, restricted
from controlplane.apiserver.admission.pod_security.findings import CheckPod, Finding, PodView
from controlplane.apiserver.admission.pod_security.levels import Level, LevelVersion


def evaluate(policy: LevelVersion, pod: PodView) -> Sequence[Finding]:
    """All violations, in upstream's order."""
    if policy.level is Level.PRIVILEGED:
        return ()
    found = (check(pod) for check in checks(policy))
    return [finding for finding in found if finding is not None]


def details(findings: Sequence[Finding]) -> str:
    return ", ".join(map(str, findings))


def reasons(findings: Sequence[Finding]) -> str:
    return ", ".join(finding.reason for finding in findings)


@cache
def checks(policy: LevelVersion) -> tuple[CheckPod, ...]:
    """The checks of baseline by id, then those of restricted."""
    strict = _in_force(restricted.CHECKS, policy.minor) if policy.level is Level.RESTRICTED else {}
    replaced = {restricted.REPLACES[name] for name in strict if name in restricted.REPLACES}
    base = _in_force(baseline.CHECKS, policy.minor)
    return (*(check for name, check in base.items() if name not in replaced), *strict.values())


def _in_force(known: Mapping[str, Mapping[int, CheckPod]], minor: int) -> dict[str, CheckPod]:
    found: dict[str, CheckPod] = {}
    for name in sorted(known):
        since = [first for first in known[name] if first <= minor]
        if since:
            found[name] = known[name][max(since)]
    return found
