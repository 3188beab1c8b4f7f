"""Starts one attempt of one container: image, environment, config, the runtime's call, and kubelet's events
for each.

Used by `worker`, which gives the view to note the result in. Decides nothing about when.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.client.events import NORMAL, WARNING
from controlplane.errors import Object
from controlplane.meta import objects
from controlplane.resources.catalog import POD
from netkit.node.config_source import ConfigSource
from netkit.node.hooks import run_hook
from netkit.node.images.catalogue import CatalogueError
from netkit.node.images.resolve import ImageUnknown, Runnable, resolve
from netkit.node.lifecycle.backoff import BackOff
from netkit.node.lifecycle.plan import is_sidecar, should_restart
from netkit.node.lifecycle.records import Record, View, Views, from_state
from netkit.node.pod_directory import PodDirectory
from netkit.node.podspec.container_config import PodFiles, build
from netkit.node.podspec.environment import PodPlace, environment
from netkit.node.podspec.references import ConfigError, environment_references
from netkit.node.runtime.client import RuntimeRefused
from netkit.node.runtime.spec import BindMount, ContainerConfig
from netkit.node.settings import NodeContext

log = logging.getLogger(__name__)

_CONFIG_RETRY_SECONDS = 5.0
_HOOK_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class PodSetting:
    """What all containers of a pod share once its sandbox stands."""

    network: str
    place: PodPlace
    files: PodFiles


class ContainerStarter:
    """Starts the containers of one pod."""

    def __init__(self, context: NodeContext, source: ConfigSource, directory: PodDirectory) -> None:
        self._context = context
        self._source = source
        self._directory = directory
        self._image_backoff = BackOff()

    def event(self, pod: Object, container: Object, type_: str, reason: str, message: str) -> None:
        """An event about one container of the pod."""
        kind = kind_of(pod, container)
        path = f"spec.{kind}{{{container['name']}}}"
        self._context.events.event(POD, pod, type_, reason, message, path)

    async def start(self, pod: Object, container: Object, views: Views, setting: PodSetting) -> bool:
        """Start the next attempt; True when it runs. What prevents it stands in its view then.

        Raises RuntimeGone, StatusError and ConnectionFailed, for which nothing is noted: try again.
        """
        view = views.of(container["name"])
        try:
            runnable = self._resolve(container)
        except (ImageUnknown, CatalogueError) as error:
            self._image_failed(pod, container, view, str(error))
            return False
        name = container["name"]
        try:
            config = await self._config(pod, container, runnable, views, setting)
            _make_sub_paths(config.binds)
        except (ConfigError, OSError) as error:
            view.waiting = ("CreateContainerConfigError", str(error))
            view.retry_at = self._context.clock() + _CONFIG_RETRY_SECONDS
            self.event(pod, container, WARNING, "Failed", f"Error: {error}")
            return False
        self._image_backoff.forget(name)
        await self._forget_old(view, config.attempt)
        try:
            state = await self._context.runtime.start(config)
        except RuntimeRefused as error:
            self._start_failed(pod, container, view, config, str(error))
            return False
        view.take(from_state(state))
        view.waiting = None
        view.retry_at = 0.0
        image = container.get("image", "")
        self.event(pod, container, NORMAL, "Pulled", f'Container image "{image}" already present on machine')
        self.event(pod, container, NORMAL, "Created", f"Created container: {name}")
        self.event(pod, container, NORMAL, "Started", f"Started container {name}")
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook:
            await self._post_start(pod, container, config, hook, setting)
        return True

    def _resolve(self, container: Object) -> Runnable:
        image = container.get("image", "")
        return resolve(
            image,
            self._context.images.find(image),
            container.get("command") or (),
            container.get("args") or (),
            container.get("ports") or (),
        )

    async def _config(
        self, pod: Object, container: Object, runnable: Runnable, views: Views, setting: PodSetting
    ) -> ContainerConfig:
        view = views.of(container["name"])
        references = environment_references(container)
        sources = await self._source.fetch(objects.namespace(pod), references)
        env = environment(pod, container, setting.place, sources, self._context.services(), runnable.env)
        attempt = 0 if view.current is None else view.current.attempt + 1
        return build(
            pod, container, runnable,
            container_id=secrets.token_hex(32), attempt=attempt, network=setting.network, place=setting.place,
            env=env, files=self._files(container, setting.files),
            log_path=str(self._directory.log(container["name"], attempt)), neighbour=_neighbour(container, views),
        )  # fmt: skip

    def _files(self, container: Object, files: PodFiles) -> PodFiles:
        path = container.get("terminationMessagePath") or "/dev/termination-log"
        message = self._directory.path / "termination" / container["name"]
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_bytes(b"")
        message.chmod(0o666)
        etc: Mapping[str, str] = {**files.etc, path: str(message)}
        return PodFiles(files.volumes, etc)

    async def _forget_old(self, view: View, attempt: int) -> None:
        """Only the attempt before the new one is kept, as kubelet keeps one dead container."""
        old = view.previous
        if old is not None and old.id:
            await self._context.runtime.remove(old.id)
        if attempt >= 2:
            self._directory.drop_log(view.name, attempt - 2)

    def _image_failed(self, pod: Object, container: Object, view: View, text: str) -> None:
        name, image, now = container["name"], container.get("image", ""), self._context.clock()
        policy = container.get("imagePullPolicy")
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            self.event(pod, container, WARNING, "ErrImageNeverPull", message)
            self.event(pod, container, WARNING, "Failed", "Error: ErrImageNeverPull")
            view.waiting, view.retry_at = ("ErrImageNeverPull", f"{message}: {text}"), now + 10
            return
        if view.waiting is not None and view.waiting[0] == "ErrImagePull":
            view.waiting = ("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {text}')
            self.event(pod, container, NORMAL, "BackOff", f'Back-off pulling image "{image}"')
            self.event(pod, container, WARNING, "Failed", "Error: ImagePullBackOff")
            view.retry_at = self._image_backoff.until(name, now)
            return
        self.event(pod, container, NORMAL, "Pulling", f'Pulling image "{image}"')
        self.event(pod, container, WARNING, "Failed", f'Failed to pull image "{image}": {text}')
        self.event(pod, container, WARNING, "Failed", "Error: ErrImagePull")
        self._image_backoff.next(name, now, now)
        view.waiting, view.retry_at = ("ErrImagePull", text), now + 2

    def _start_failed(
        self, pod: Object, container: Object, view: View, config: ContainerConfig, text: str
    ) -> None:
        image = container.get("image", "")
        self.event(pod, container, NORMAL, "Pulled", f'Container image "{image}" already present on machine')
        self.event(pod, container, NORMAL, "Created", f"Created container: {container['name']}")
        self.event(pod, container, WARNING, "Failed", f"Error: {text}")
        record = Record(
            id=config.id, name=config.name, attempt=config.attempt, running=False,
            image_id=config.annotations.get("imageID", ""), finished_at=self._context.clock(), exit_code=128,
            reason="StartError", message=text,
        )  # fmt: skip
        view.take(record)
        policy = "Always" if is_sidecar(container) else pod["spec"].get("restartPolicy", "Always")
        if kind_of(pod, container) == "ephemeralContainers":
            policy = "Never"
        view.waiting = ("RunContainerError", text) if should_restart(policy, record.exit_code) else None

    async def _post_start(
        self, pod: Object, container: Object, config: ContainerConfig, hook: Object, setting: PodSetting
    ) -> None:
        address = setting.place.addresses[0] if setting.place.addresses else ""
        outcome = await run_hook(self._context, container, config.id, address, hook, _HOOK_SECONDS)
        if not outcome.success:
            # As kubelet: the output may hold secrets, so it goes to the log only.
            log.info("%s: postStart: %s", config.key, outcome.text)
            self.event(pod, container, WARNING, "FailedPostStartHook", "PostStartHook failed")
            self.event(pod, container, NORMAL, "Killing", "FailedPostStartHook")
            await self._context.runtime.stop(
                config.id, float(pod["spec"].get("terminationGracePeriodSeconds") or 30)
            )


def kind_of(pod: Object, container: Object) -> str:
    """The field of the pod's spec the container stands in."""
    for kind in ("initContainers", "ephemeralContainers"):
        if container in (pod["spec"].get(kind) or ()):
            return kind
    return "containers"


def _neighbour(container: Object, views: Views) -> str:
    """The id of the container an ephemeral one is aimed at. Raises ConfigError when it has never run."""
    name = container.get("targetContainerName")
    if not name:
        return ""
    record = views.of(name).current
    if record is None or not record.id:
        raise ConfigError(f"unable to find target container {name}")
    return record.id


def _make_sub_paths(binds: tuple[BindMount, ...]) -> None:
    for bind in binds:
        if not os.path.lexists(bind.source):
            Path(bind.source).mkdir(parents=True)
