"""Plays sequences of `proxy_sequences` on a proxy mode, and proves that they end where a fresh start would.

For the tests of every mode: a `Rig` is a kernel, fake or real, on which back ends of the mode work one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol

from support.proxy import Object, feed
from support.proxy_sequences import (
    Delete,
    Failure,
    Minute,
    NodeChange,
    Play,
    Restart,
    Step,
    Sync,
    Traffic,
    Upsert,
)

from netkit.kernel.errors import KernelError
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend, NodeFacts
from netkit.proxy.listing import differences
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

ADDRESSES = [ip_address(text) for text in ("127.0.0.1", "::1", "10.0.0.1", "fd00::1")]
"""What the node's kernel has. An external IP of the sequences is among them."""


class Rig(Protocol):
    """A mode on a kernel of its own."""

    async def start(self, settings: ProxySettings) -> Backend:
        """A back end for the node `HERE` that knows nothing of earlier ones, whose process has ended."""

    def fail(self, place: int | None) -> None:
        """Have a write fail soon, once; see `Failure`. None: what has not failed by now will not."""

    def connect(self, connections: int) -> None:
        """Let each real server have so many connections, if the mode has any."""

    async def minute(self, backend: Backend) -> None:
        """Move the clock on by a minute, and let the back end do what it does of its own accord by then."""

    async def content(self) -> Any:
        """All that is in the kernel, equal for two kernels with the same content."""

    async def close(self) -> None:
        """Let go of everything, in whatever state it is."""


@dataclass
class Player:
    """An agent on a rig, and the objects that exist, as the API would list them."""

    rig: Rig
    family: Family
    settings: ProxySettings
    facts: NodeFacts = field(default_factory=NodeFacts)
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)

    async def begin(self) -> None:
        """Start the agent, with another one's rules in the kernel or none."""
        self.backend = await self.rig.start(self.settings)
        self.backend.configure(self.facts)
        self.state = ProxyState(self.family)
        feed(self.state, *self.objects.values())
        self.full = True

    async def play(self, steps: Iterable[Step]) -> None:
        """Do what the steps say as the loop would, until everything is written."""
        await self.begin()
        for step in (*steps, Sync()):
            await self._take(step)
        if self.full:  # the last write was made to fail
            await self._take(Sync())
        assert not self.full

    async def sync(self) -> bool:
        """One sync, a full one if that is due; whether it wrote anything. Raises KernelError."""
        changes = self.state.collect()
        full, self.full = self.full, True
        report = await self.backend.sync(self.state, None if full else changes)
        self.state.mark_synced()
        self.full = False
        return report.wrote

    async def agrees(self) -> None:
        """Assert that what stands is what is wanted, also in the eyes of him who looks after it."""
        assert differences(await self.backend.wanted(self.state), await self.backend.standing()) == ()
        assert await self.backend.intact()

    async def _take(self, step: Step) -> None:
        match step:
            case Upsert(obj):
                metadata = obj["metadata"]
                self.objects[obj["kind"], metadata["namespace"], metadata["name"]] = obj
                feed(self.state, obj)
            case Delete(kind, namespace, name):
                self.objects.pop((kind, namespace, name), None)
                delete = self.state.delete_service if kind == "Service" else self.state.delete_slice
                delete(namespace, name)
            case NodeChange(facts):
                self.facts = facts
                self.full |= self.backend.configure(facts)
            case Restart(settings):
                self.settings = settings
                await self.begin()
            case Failure(place):
                self.rig.fail(place)
            case Traffic(connections):
                self.rig.connect(connections)
            case Minute():
                await self.rig.minute(self.backend)
                intact = await self.backend.intact()
                assert intact or self.full, "nobody has touched what the last sync wrote"
                self.full |= not intact
            case Sync(full):
                self.full |= full
                try:
                    await self.sync()
                except KernelError:
                    assert self.full


class _InThisThread(ThreadPoolExecutor):
    """Does at once what is given to it: nothing else waits for the loop, and threads cost more than the work."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to him who waits for the result
            done.set_exception(error)
        return done


async def ends_like_a_fresh_start(made: Callable[[Family], Rig], play: Play) -> None:
    """Play on one rig, and assert that its kernel ends like that of another, where nothing was before.

    Also: what stands is what is wanted, an agent that starts again finds nothing to write, and its clean-up leaves
    nothing.
    """
    asyncio.get_running_loop().set_default_executor(_InThisThread())
    family, start, steps = play
    rig, fresh = made(family), made(family)
    try:
        await _ends_like_a_fresh_start(rig, fresh, Player(rig, family, start), steps)
    finally:
        await rig.close()
        await fresh.close()


async def _ends_like_a_fresh_start(rig: Rig, fresh: Rig, player: Player, steps: Iterable[Step]) -> None:
    empty = await rig.content()
    await player.play(steps)
    await player.agrees()
    rig.connect(0)
    # Whatever failed in the first minute is tried again in the second.
    for _ in range(2):
        await rig.minute(player.backend)
        assert await player.backend.intact()

    other = Player(fresh, player.family, player.settings, player.facts, player.objects)
    await other.begin()
    await other.sync()
    assert await rig.content() == await fresh.content()

    rig.fail(None)
    await player.begin()
    assert not await player.sync(), "a restart adopts what stands"
    everything = ProxyState(player.family)
    feed(everything, *player.objects.values())
    assert not (await player.backend.sync(everything, everything.collect())).wrote
    await player.backend.cleanup()
    assert await rig.content() == empty
