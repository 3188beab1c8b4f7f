"""The Node object an agent registers and its status, as kubelet writes them. Pure."""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.meta import conditions as condition_lists
from netkit import KUBERNETES_VERSION, VERSION
from netkit.node.machine_facts import MachineFacts
from netkit.node.settings import NodeSettings


def node_object(settings: NodeSettings, facts: MachineFacts) -> Object:
    """What is created when the node is new."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.node_name,
            "labels": labels(settings, facts),
            "annotations": dict(settings.annotations),
        },
        "spec": {"taints": list(settings.taints)} if settings.taints else {},
    }


def labels(settings: NodeSettings, facts: MachineFacts) -> dict[str, str]:
    """The node's own labels and those of the settings."""
    return {
        "beta.kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": "linux",
        **settings.labels,
    }


def node_status(
    settings: NodeSettings, facts: MachineFacts, existing: Object, now: str, problem: str
) -> Object:
    """The status to write; conditions of others (NetworkUnavailable, ...) are kept. `problem` "" means Ready."""
    capacity = dict(settings.capacity)
    return {
        "addresses": [
            {"type": "InternalIP", "address": settings.node_address},
            {"type": "Hostname", "address": settings.node_name},
        ],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": _conditions(existing.get("conditions") or [], now, problem),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.kubelet_port}},
        "nodeInfo": {
            "architecture": facts.architecture,
            "bootID": facts.boot_id,
            "containerRuntimeVersion": f"netkit://{VERSION}",
            "kernelVersion": facts.kernel,
            "kubeProxyVersion": KUBERNETES_VERSION,
            "kubeletVersion": KUBERNETES_VERSION,
            "machineID": facts.machine_id,
            "operatingSystem": "linux",
            "osImage": facts.os_image,
            "systemUUID": facts.machine_id,
        },
    }


def _conditions(existing: list[Object], now: str, problem: str) -> list[Object]:
    ready = ("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    if problem:
        ready = ("Ready", "False", "KubeletNotReady", problem)
    own = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    )
    result = list(existing)
    for type_, status, reason, message in own:
        condition = {
            "type": type_, "status": status, "lastHeartbeatTime": now, "lastTransitionTime": now,
            "reason": reason, "message": message,
        }  # fmt: skip
        result = condition_lists.with_condition(result, condition)
    return result
