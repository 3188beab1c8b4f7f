"""Looking after a node's encrypted tunnel while it works: its program may end, and new nodes may be mute.

Part of `agent`'s loop, which owns the tunnels and the turn in which they may be touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from netkit.kernel.errors import KernelError
from netkit.kernel.wireguard_values import Program
from netkit.podnet import wireguard
from netkit.podnet.tunnels import SHY_SECONDS, Tunnels

log = logging.getLogger(__name__)

_SESSION_SECONDS: Final = 1.0
"""How long a change of mode waits for nodes that do not answer, before it goes on without them."""


class TunnelWatch:
    """`node` is for messages, `turn` is held while the tunnels are touched, `lost` called when a program has ended."""

    def __init__(self, node: str, tunnels: Tunnels, turn: asyncio.Lock, lost: Callable[[], None]) -> None:
        self._node = node
        self._tunnels = tunnels
        self._turn = turn
        self._lost = lost
        self._program: Program | None = None
        self._watching: asyncio.Task[None] | None = None
        self._greeting: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Watch the program that carries the tunnel now, if one does."""
        program = self._tunnels.program
        if program is self._program:
            return
        if self._watching is not None:
            self._watching.cancel()
        self._program = program
        self._watching = asyncio.create_task(self._ended(program)) if program is not None else None

    def greet_soon(self) -> None:
        """Greet new peers that are silent, after giving them time: who should have greeted may not have known us."""
        if self._greeting is not None:
            self._greeting.cancel()
        self._greeting = asyncio.create_task(self._greet())

    async def open_sessions(self) -> None:
        """Return when all peers have answered, or could have. The caller has the turn. Raises KernelError."""
        await asyncio.to_thread(self._tunnels.open_sessions, _SESSION_SECONDS)

    async def close(self) -> None:
        """Watch no longer; the tunnels stay."""
        tasks = [task for task in (self._watching, self._greeting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ended(self, program: Program) -> None:
        await program.ended()
        async with self._turn:
            if self._tunnels.program is program:
                log.warning("%s: what carries %s has ended", self._node, wireguard.DEVICE)
                self._lost()

    async def _greet(self) -> None:
        await asyncio.sleep(SHY_SECONDS)
        async with self._turn:
            try:
                await asyncio.to_thread(self._tunnels.greet_silent)
            except KernelError as error:
                log.warning("%s: %s", self._node, error)
