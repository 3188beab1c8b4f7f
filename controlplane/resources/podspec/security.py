"""Rules for security contexts, as far as they contradict themselves. Pure."""

from __future__ import annotations

from controlplane.resources.rules import Field

_ID_MAX = 2**31 - 1
_SECCOMP = ("Localhost", "RuntimeDefault", "Unconfined")


def validate_pod_security(context: Field) -> None:
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        context[name].between(0, _ID_MAX)
    for group in context["supplementalGroups"]:
        group.between(0, _ID_MAX)
    context["fsGroupChangePolicy"].one_of("OnRootMismatch", "Always")
    for sysctl in context["sysctls"]:
        sysctl["name"].required()
    context["sysctls"].unique("name")
    _seccomp(context["seccompProfile"])


def validate_container_security(context: Field) -> None:
    for name in ("runAsUser", "runAsGroup"):
        context[name].between(0, _ID_MAX)
    context["procMount"].one_of("Default", "Unmasked")
    escalation = context["allowPrivilegeEscalation"]
    if escalation.value is False:
        if context["privileged"].value is True:
            context.of(None).invalid(
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            )
        if "CAP_SYS_ADMIN" in (context["capabilities"]["add"].value or ()):
            context.of(None).invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            )
    _seccomp(context["seccompProfile"])


def _seccomp(profile: Field) -> None:
    if profile.value is None:
        return
    profile["type"].required().one_of(*_SECCOMP)
    local = profile["localhostProfile"]
    if profile["type"].value == "Localhost":
        local.required("must be set when seccomp type is Localhost")
    elif local.present:
        local.invalid("can only be set when seccomp type is Localhost")
