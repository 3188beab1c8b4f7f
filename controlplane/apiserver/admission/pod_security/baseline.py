"""The checks of the level `baseline`, in the words of v1.32. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from controlplane.resources.fieldpath import quoted

DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
)
_SYSCTLS_27 = (*_SYSCTLS, "net.ipv4.ip_local_reserved_ports")
_SYSCTLS_29 = (
    *_SYSCTLS_27,
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
)
_SYSCTLS_32 = (*_SYSCTLS_29, "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")
_SELINUX = ("", "container_t", "container_init_t", "container_kvm_t")
_SELINUX_31 = (*_SELINUX, "container_engine_t")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def app_armor(pod: PodView) -> Finding | None:
    bad: set[str] = set()

    def is_bad(security: Mapping[str, Any]) -> bool:
        profile = security.get("appArmorProfile")
        kind = profile.get("type", "") if profile else "RuntimeDefault"
        if kind in ("RuntimeDefault", "Localhost"):
            return False
        bad.add(kind)
        return True

    by_pod = is_bad(pod.security)
    containers = [item["name"] for item in pod.containers() if is_bad(security_of(item))]
    annotations = sorted(
        f"{key}={quoted(value)}"
        for key, value in pod.annotations.items()
        if key.startswith(_APPARMOR)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    who = setters(by_pod, containers)
    if annotations:
        word = plural("annotation", "annotations", len(annotations))
        who = f"{who} and {word}" if who else word
    if not who:
        return None
    values = [*sorted(bad), *annotations]
    return Finding(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", len(values)),
        f"{who} must not set AppArmor profile type to {quoted_list(values)}",
    )


def capabilities(pod: PodView) -> Finding | None:
    containers: list[str] = []
    forbidden: set[str] = set()
    for item in pod.containers():
        added = (security_of(item).get("capabilities") or {}).get("add") or ()
        beyond = set(added) - DEFAULT_CAPABILITIES
        if beyond:
            containers.append(item["name"])
            forbidden |= beyond
    if not containers:
        return None
    caps = quoted_list(sorted(forbidden))
    return Finding(
        "non-default capabilities",
        f"{named(containers)} must not include {caps} in securityContext.capabilities.add",
    )


def host_namespaces(pod: PodView) -> Finding | None:
    fields = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(field)]
    return Finding("host namespaces", ", ".join(fields)) if fields else None


def host_path_volumes(pod: PodView) -> Finding | None:
    volumes = [
        volume["name"] for volume in pod.spec.get("volumes") or () if volume.get("hostPath") is not None
    ]
    if not volumes:
        return None
    return Finding("hostPath volumes", f"{plural('volume', 'volumes', len(volumes))} {quoted_list(volumes)}")


def host_ports(pod: PodView) -> Finding | None:
    containers: list[str] = []
    ports: set[int] = set()
    for item in pod.containers():
        found = {port["hostPort"] for port in item.get("ports") or () if port.get("hostPort")}
        if found:
            containers.append(item["name"])
            ports |= found
    if not containers:
        return None
    verb = plural("uses", "use", len(containers))
    # Sorted as texts, as upstream sorts them.
    listed = ", ".join(sorted(map(str, ports)))
    return Finding(
        "hostPort", f"{named(containers)} {verb} {plural('hostPort', 'hostPorts', len(ports))} {listed}"
    )


def privileged(pod: PodView) -> Finding | None:
    containers = [item["name"] for item in pod.containers() if security_of(item).get("privileged")]
    if not containers:
        return None
    return Finding("privileged", f"{named(containers)} must not set securityContext.privileged=true")


def proc_mount(pod: PodView) -> Finding | None:
    containers: list[str] = []
    values: set[str] = set()
    for item in pod.containers():
        value = security_of(item).get("procMount")
        if value is not None and value != "Default":
            containers.append(item["name"])
            values.add(value)
    if not containers:
        return None
    return Finding(
        "procMount",
        f"{named(containers)} must not set securityContext.procMount to {quoted_list(sorted(values))}",
    )


def _selinux(allowed: tuple[str, ...]) -> CheckPod:
    def check(pod: PodView) -> Finding | None:
        types: set[str] = set()
        found: set[str] = set()

        def is_bad(security: Mapping[str, Any]) -> bool:
            options = security.get("seLinuxOptions") or {}
            kind = options.get("type", "")
            if kind not in allowed:
                types.add(kind)
            set_here = {field for field in ("user", "role") if options.get(field)}
            found.update(set_here)
            return kind not in allowed or bool(set_here)

        by_pod = is_bad(pod.security)
        containers = [item["name"] for item in pod.containers() if is_bad(security_of(item))]
        if not by_pod and not containers:
            return None
        data = [f"{plural('type', 'types', len(types))} {quoted_list(sorted(types))}"] if types else []
        data += [f"{field} may not be set" for field in ("user", "role") if field in found]
        who = setters(by_pod, containers)
        return Finding(
            "seLinuxOptions", f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"
        )

    return check


def seccomp_annotations(pod: PodView) -> Finding | None:
    keys = [_SECCOMP_POD, *(_SECCOMP_CONTAINER + item["name"] for item in pod.containers())]
    forbidden = sorted(
        f"{key}={quoted(pod.annotations[key])}"
        for key in set(keys)
        if key in pod.annotations and not _allowed_seccomp(pod.annotations[key])
    )
    if not forbidden:
        return None
    word = plural("annotation", "annotations", len(forbidden))
    return Finding("seccompProfile", f"forbidden {word} {', '.join(forbidden)}")


def _allowed_seccomp(value: str) -> bool:
    return value in ("runtime/default", "docker/default") or value.startswith("localhost/")


def bad_seccomp(pod: PodView) -> tuple[bool, list[str], list[str]]:
    """Whether the pod, and which containers, set a profile that is not allowed; and the values."""
    values: set[str] = set()

    def is_bad(security: Mapping[str, Any]) -> bool:
        profile = security.get("seccompProfile")
        if not profile or profile.get("type") in ("RuntimeDefault", "Localhost"):
            return False
        values.add(profile.get("type", ""))
        return True

    by_pod = is_bad(pod.security)
    containers = [item["name"] for item in pod.containers() if is_bad(security_of(item))]
    return by_pod, containers, sorted(values)


def seccomp(pod: PodView) -> Finding | None:
    by_pod, containers, values = bad_seccomp(pod)
    if not values:
        return None
    who = setters(by_pod, containers)
    return Finding(
        "seccompProfile", f"{who} must not set securityContext.seccompProfile.type to {quoted_list(values)}"
    )


def _sysctls(allowed: tuple[str, ...]) -> CheckPod:
    def check(pod: PodView) -> Finding | None:
        names = [item.get("name", "") for item in pod.security.get("sysctls") or ()]
        forbidden = [name for name in names if name not in allowed]
        return Finding("forbidden sysctls", ", ".join(forbidden)) if forbidden else None

    return check


def host_process(pod: PodView) -> Finding | None:
    def is_bad(security: Mapping[str, Any]) -> bool:
        return bool((security.get("windowsOptions") or {}).get("hostProcess"))

    by_pod = is_bad(pod.security)
    containers = [item["name"] for item in pod.containers() if is_bad(security_of(item))]
    if not by_pod and not containers:
        return None
    who = setters(by_pod, containers)
    return Finding("hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true")


CHECKS: Mapping[str, Mapping[int, CheckPod]] = {
    "appArmorProfile": {0: app_armor},
    "capabilities_baseline": {0: capabilities},
    "hostNamespaces": {0: host_namespaces},
    "hostPathVolumes": {0: host_path_volumes},
    "hostPorts": {0: host_ports},
    "privileged": {0: privileged},
    "procMount": {0: proc_mount},
    "seLinuxOptions": {0: _selinux(_SELINUX), 31: _selinux(_SELINUX_31)},
    "seccompProfile_baseline": {0: seccomp_annotations, 19: seccomp},
    "sysctls": {
        0: _sysctls(_SYSCTLS), 27: _sysctls(_SYSCTLS_27), 29: _sysctls(_SYSCTLS_29), 32: _sysctls(_SYSCTLS_32),
    },
    "windowsHostProcess": {0: host_process},
}  # fmt: skip
"""By id, then by the first minor version it is in force in that form."""
