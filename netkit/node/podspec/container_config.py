"""One container of a pod as the runtime's config. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.errors import Object
from controlplane.meta import objects
from netkit.kernel.container_capabilities import bounding_set
from netkit.node.images.resolve import Runnable
from netkit.node.podspec.environment import PodPlace, expand
from netkit.node.podspec.references import ConfigError
from netkit.node.runtime.spec import BindMount, ContainerConfig, Processes, SecurityConfig


@dataclass(frozen=True, slots=True)
class PodFiles:
    """Paths of the files made for the pod: volumes by name, and what is shown under /etc."""

    volumes: Mapping[str, str]
    etc: Mapping[str, str]


def build(
    pod: Object,
    container: Object,
    runnable: Runnable,
    *,
    container_id: str,
    attempt: int,
    network: str,
    place: PodPlace,
    env: Mapping[str, str],
    files: PodFiles,
    log_path: str,
    neighbour: str = "",
) -> ContainerConfig:
    """The config to start. `neighbour` is the id of the container whose processes it shares. Raises ConfigError."""
    security = _security(pod, container)
    return ContainerConfig(
        id=container_id,
        pod_namespace=objects.namespace(pod),
        pod_name=objects.name(pod),
        pod_uid=objects.uid(pod),
        name=container["name"],
        attempt=attempt,
        network=network,
        hostname=place.hostname,
        log_path=log_path,
        builtin=runnable.builtin,
        argv=tuple(expand(word, env) for word in runnable.argv),
        env=env,
        workdir=container.get("workingDir") or runnable.workdir or "/",
        root=runnable.root,
        binds=_binds(container, files, env),
        security=security,
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        addresses=place.addresses,
        node_name=place.node_name,
        processes=_processes(pod["spec"], neighbour),
        neighbour=neighbour,
        host_ipc=bool(pod["spec"].get("hostIPC")),
        annotations={"image": container.get("image", ""), "imageID": runnable.image_id},
    )


def _processes(spec: Object, neighbour: str) -> Processes:
    if neighbour:
        return Processes.CONTAINER
    if spec.get("hostPID"):
        return Processes.HOST
    return Processes.POD if spec.get("shareProcessNamespace") else Processes.OWN


def _binds(container: Object, files: PodFiles, env: Mapping[str, str]) -> tuple[BindMount, ...]:
    mounts = []
    taken = set()
    for mount in container.get("volumeMounts") or ():
        source = files.volumes.get(mount["name"])
        if source is None:
            raise ConfigError(
                f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"'
            )
        sub_path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
        if sub_path:
            if ".." in sub_path.split("/") or sub_path.startswith("/"):
                raise ConfigError(f'subPath "{sub_path}" must not leave the volume')
            source = posixpath.join(source, sub_path)
        target = posixpath.normpath(posixpath.join("/", mount["mountPath"]))
        taken.add(target)
        mounts.append(BindMount(source, target, bool(mount.get("readOnly"))))
    etc = [BindMount(source, target) for target, source in files.etc.items() if target not in taken]
    # Parents before children: a mount must not hide another one below it.
    return (*etc, *sorted(mounts, key=lambda bind: bind.target.count("/") if bind.target != "/" else 0))


def _security(pod: Object, container: Object) -> SecurityConfig:
    of_pod = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    uid = own.get("runAsUser", of_pod.get("runAsUser"))
    gid = own.get("runAsGroup", of_pod.get("runAsGroup"))
    if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) and not uid:
        raise ConfigError(
            f"container has runAsNonRoot and image will run as root (pod: "
            f'"{objects.name(pod)}_{objects.namespace(pod)}({objects.uid(pod)})", container: {container["name"]})'
        )
    capabilities = own.get("capabilities") or {}
    kept = bounding_set(
        capabilities.get("add") or (), capabilities.get("drop") or (), privileged=bool(own.get("privileged"))
    )
    groups = [*(of_pod.get("supplementalGroups") or ())]
    if of_pod.get("fsGroup") is not None:
        groups.append(of_pod["fsGroup"])
    return SecurityConfig(
        uid=int(uid or 0),
        gid=int(gid or 0),
        groups=tuple(map(int, groups)),
        capabilities=tuple(sorted(kept)),
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
    )
