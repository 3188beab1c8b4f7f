"""A node's kube-proxy that can change its mode while it works. Run by the node's agent.

A change goes in an order that leaves no moment without rules: the proxy of the old mode stops, and its rules go on
serving; the new one writes all of its own; then the old rules are removed. Established connections live in connection
tracking, which no mode touches for them. If the new mode cannot be brought to work, its rules are removed again and the
old one goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from controlplane.client.client import Client
from netkit.cluster.config import ClusterConfig
from netkit.cluster.outcome import State
from netkit.cluster.proxy_choice import Choice, Outcome, ProxyFiles
from netkit.cluster.proxy_config import with_mode
from netkit.kernel.errors import KernelError
from netkit.kernel.file_watch import FileWatch
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.assembly import assemble
from netkit.proxy.configuration.apply import proxy_settings
from netkit.proxy.configuration.defaults import for_linux
from netkit.proxy.configuration.document import KubeProxyConfiguration
from netkit.proxy.configuration.encode import as_json
from netkit.proxy.modes import Site, remove_leftovers
from netkit.proxy.settings import ProxyMode

log = logging.getLogger(__name__)

Make = Callable[[Choice], ProxyAgent]
"""Makes the proxy of a choice. Raises Unsupported with the name of what the kernel lacks."""

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Serving:
    """A proxy at work."""

    choice: Choice
    agent: ProxyAgent
    task: asyncio.Task[None]


class NodeProxy:
    """The proxy of one node. `first` is the mode as long as nobody chose another.

    `patience`: seconds a new mode has until its rules must stand.
    """

    def __init__(
        self, site: Site, files: ProxyFiles, first: Choice, make: Make, patience: float = _PATIENCE_SECONDS
    ) -> None:
        self._site = site
        self._files = files
        self._first = first
        self._make = make
        self._patience = patience
        self._answered: str | None = None

    async def run(self) -> None:
        """Work until cancelled; the rules stay. A proxy that ends by itself ends this too."""
        self._files.choice_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileWatch(self._files.choice_path) as watch:
            serving: _Serving | None = None
            try:
                while True:
                    choice = self._wanted()
                    serving = await self._follow(choice, serving, watch)
                    if self._wanted() == choice:
                        await _first_of(serving, watch.changed())
            finally:
                await _stop(serving)
                _release(serving)

    def _wanted(self) -> Choice:
        return self._files.choice() or self._first

    async def _follow(self, choice: Choice, before: _Serving | None, watch: FileWatch) -> _Serving | None:
        """Bring `choice` to work in place of `before`; what is at work afterwards."""
        if before is not None and _same(choice, before.choice):
            if choice.asked != self._answered:
                self._report(choice, State.SERVING, choice)
            return replace(before, choice=choice)
        try:
            agent = self._make(choice)
        except KernelError as error:
            log.error("%s: mode %s: %s", self._site.node_name, choice.shown, error)
            self._fail(choice, before, str(error), error.hint)
            return before
        if before is None:
            return await self._begin(choice, agent, watch)
        return await self._hand_over(choice, agent, before)

    async def _begin(self, choice: Choice, agent: ProxyAgent, watch: FileWatch) -> _Serving:
        """The first mode of this process. There is no way back, and so no hurry; but a new choice may come."""
        self._report(choice, State.SWITCHING, choice)
        began = time.monotonic()
        serving = _start(choice, agent)
        if await _first_of(serving, agent.synced(), watch.changed()) == 0:
            await self._clean(choice)
            self._report(choice, State.SERVING, choice, seconds=time.monotonic() - began)
        return serving

    async def _hand_over(self, choice: Choice, agent: ProxyAgent, before: _Serving) -> _Serving:
        """From one mode to another."""
        log.info("%s: from mode %s to %s", self._site.node_name, before.choice.shown, choice.shown)
        self._report(choice, State.SWITCHING, before.choice)
        began = time.monotonic()
        await _stop(before)
        serving = _start(choice, agent)
        try:
            async with asyncio.timeout(self._patience):
                await _first_of(serving, agent.synced())
        except TimeoutError:
            return await self._back(serving, before, f"its rules did not stand within {self._patience:.0f} s")
        except (KernelError, ExceptionGroup) as error:
            return await self._back(serving, before, str(error))
        await self._clean(choice)
        _release(before)
        self._report(choice, State.SERVING, choice, seconds=time.monotonic() - began)
        return serving

    async def _back(self, failed: _Serving, before: _Serving, why: str) -> _Serving:
        """Let the old mode go on, and remove what the new one wrote."""
        choice, old = failed.choice, before.choice
        log.error(
            "%s: mode %s does not work: %s; back to %s", self._site.node_name, choice.shown, why, old.shown
        )
        await _stop(failed)
        _release(failed)
        _release(before)
        agent = self._make(old)
        serving = _start(old, agent)
        await _first_of(serving, agent.synced())
        await self._clean(old)
        self._fail(choice, before, why)
        return serving

    async def _clean(self, choice: Choice) -> None:
        """Remove the rules of all modes but the chosen one; what stays is removed at the next start."""
        try:
            await remove_leftovers(self._site, list(Family), choice.mode)
        except ExceptionGroup as group:
            for error in group.exceptions:
                log.warning("%s: rules of another mode stay: %s", self._site.node_name, error)

    def _fail(self, choice: Choice, before: _Serving | None, why: str, hint: str = "") -> None:
        """Say that a wish failed. What works is the choice again, or a restart would try in vain."""
        if before is not None:
            self._files.choose(replace(before.choice, asked=choice.asked))
        self._report(choice, State.FAILED, before.choice if before else choice, why, hint)

    def _report(
        self,
        choice: Choice,
        state: State,
        working: Choice,
        error: str = "",
        hint: str = "",
        seconds: float = 0.0,
    ) -> None:
        self._answered = choice.asked
        self._files.report(
            Outcome(choice.asked, state, working.mode, working.layout, error, hint, round(seconds, 3))
        )


def node_proxy(
    client: Client, site: Site, config: ClusterConfig, address: str, files: ProxyFiles
) -> NodeProxy:
    """The proxy of a cluster's node with that address: the cluster's configuration, and what was chosen since."""

    def make(choice: Choice) -> ProxyAgent:
        chosen = configuration(config, site.node_name, address, choice)
        return assemble(client, site.node_name, proxy_settings(chosen), site, [Family.IPV4], as_json(chosen))

    first = Choice(ProxyMode(config.proxy.mode), config.proxy.layout)
    return NodeProxy(site, files, first, make)


def configuration(
    config: ClusterConfig, node_name: str, address: str, choice: Choice
) -> KubeProxyConfiguration:
    """The cluster's configuration of kube-proxy as it is for one node in the mode chosen."""
    chosen = replace(
        with_mode(config.proxy, choice.mode, choice.layout),
        hostname_override=node_name,
        bind_address=address,
        cluster_cidr=str(config.network.pod_subnet),
    )
    return for_linux(chosen)


def _same(one: Choice, other: Choice) -> bool:
    return (one.mode, one.layout) == (other.mode, other.layout)


def _start(choice: Choice, agent: ProxyAgent) -> _Serving:
    return _Serving(choice, agent, asyncio.create_task(agent.run(), name=f"proxy {choice.mode}"))


async def _stop(serving: _Serving | None) -> None:
    """End a proxy; its rules stay. What it died of is somebody else's business."""
    if serving is not None:
        serving.task.cancel()
        await asyncio.wait((serving.task,))
        if not serving.task.cancelled():
            serving.task.exception()


def _release(serving: _Serving | None) -> None:
    """Let go of what a stopped proxy holds, after its rules have gone or because the process ends."""
    if serving is not None:
        serving.agent.release()


async def _first_of(serving: _Serving | None, *events: Coroutine[Any, Any, None]) -> int:
    """Which of the events came first, by its place. Raises what the proxy at work died of, should that come first."""
    waiting = [asyncio.ensure_future(event) for event in events]
    working = [serving.task] if serving is not None else []
    try:
        done, _ = await asyncio.wait((*waiting, *working), return_when=asyncio.FIRST_COMPLETED)
        for place, event in enumerate(waiting):
            if event in done:
                event.result()
                return place
        working[0].result()
        raise RuntimeError("the proxy ended without being told to")
    finally:
        for event in waiting:
            event.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
