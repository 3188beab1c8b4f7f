"""Sandbox, volumes and /etc files of one pod: made once, refreshed now and then. Used by `worker`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from controlplane.errors import Object
from controlplane.meta import objects
from netkit.kernel import netns
from netkit.node.config_source import ConfigSource
from netkit.node.container_start import PodSetting
from netkit.node.pod_directory import PodDirectory
from netkit.node.pod_tokens import PodTokens
from netkit.node.podspec.container_config import PodFiles
from netkit.node.podspec.environment import PodPlace
from netkit.node.podspec.network_files import ClusterDns, hostname
from netkit.node.podspec.references import volume_references
from netkit.node.podspec.runtime_config import runtime_config
from netkit.node.podspec.volumes import prepare
from netkit.node.settings import NodeContext
from netkit.podnet.pod import NO_WISHES, PodRef, Sandbox

_REFRESH_SECONDS = 60.0


class PodSetup:
    """What has to stand before a container may start. `sandbox` is one that stands already (adopted)."""

    def __init__(
        self, context: NodeContext, source: ConfigSource, directory: PodDirectory, sandbox: Sandbox | None
    ) -> None:
        self.sandbox = sandbox
        self._context = context
        self._source = source
        self._directory = directory
        self._setting: PodSetting | None = None
        self._fresh_until = 0.0
        self._notes: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        self._tokens = PodTokens(source)

    @property
    def setting(self) -> PodSetting:
        """What containers need; `ensure` must have succeeded."""
        assert self._setting is not None
        return self._setting

    @property
    def address(self) -> str:
        """The pod's first address, "" without a sandbox."""
        return self.sandbox.addresses[0] if self.sandbox is not None and self.sandbox.addresses else ""

    @property
    def has_lost_sandbox(self) -> bool:
        """Whether there is none, or its network namespace was taken away from under the pod."""
        return self.sandbox is None or not netns.exists(self.sandbox.netns)

    async def ensure(self, pod: Object) -> None:
        """Make what is missing; refresh files of ConfigMaps and the like each minute, and at once when the
        pod's labels or annotations change, as kubelet does.

        Raises MountError, KernelError, SandboxFailed, NetworkNotReady, StatusError, ConnectionFailed.
        """
        notes = (objects.labels(pod), objects.annotations(pod))
        if self._setting is not None and time.monotonic() < self._fresh_until and notes == self._notes:
            return
        spec = pod["spec"]
        is_new = self.sandbox is None
        if self.sandbox is None:
            reference = PodRef(objects.namespace(pod), objects.name(pod), objects.uid(pod))
            on_node = bool(spec.get("hostNetwork"))
            wishes = NO_WISHES if on_node else runtime_config(pod)
            self.sandbox = await self._context.network.add(reference, on_node, wishes)
        settings = self._context.settings
        place = PodPlace(
            node_name=settings.node_name,
            host_address=settings.node_address,
            addresses=self.sandbox.addresses,
            hostname=hostname(pod, settings.node_name),
            capacity=settings.capacity,
        )
        dns = ClusterDns(settings.cluster_dns, settings.cluster_domain, _read(settings.resolv_conf))
        etc = self._directory.write_etc(pod, self.sandbox.addresses, place.hostname, dns, anew=is_new)
        volumes: dict[str, str] = {}
        wanted = spec.get("volumes") or ()
        if wanted:
            references = {reference for volume in wanted for reference in volume_references(volume)}
            sources = await self._source.fetch(objects.namespace(pod), references)
            tokens = await self._tokens.fetch(pod)
            volumes = await asyncio.to_thread(prepare, pod, self._directory.volumes, place, sources, tokens)
        self._setting = PodSetting(self.sandbox.netns, place, PodFiles(volumes, etc))
        self._fresh_until, self._notes = time.monotonic() + _REFRESH_SECONDS, notes

    async def tear_down(self, uid: str) -> None:
        """Remove the sandbox; files stay for logs. Raises KernelError."""
        await self._context.network.remove(uid)
        self.sandbox = None
        self._setting = None


def _read(path: object) -> str:
    try:
        with open(str(path), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
