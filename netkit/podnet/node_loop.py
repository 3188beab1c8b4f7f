"""Keeps something by what the Node objects say (loop): `direct_agent` routes, `bgp_agent` what a daemon announces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from controlplane.client.backoff import Backoff
from controlplane.client.informer import Informer
from controlplane.errors import Object
from netkit.kernel.errors import KernelError

log = logging.getLogger(__name__)


async def keep_by_nodes(
    nodes: Informer,
    concerns: Callable[[Object | None], object],
    apply: Callable[[Sequence[Object]], None],
    what: str,
    longest: float,
) -> None:
    """Apply the Nodes, and again whenever what `concerns` a Node (None: there is none) differs; until cancelled.

    `apply` runs in a thread. After a KernelError or OSError, which is logged as that of `what`, it is tried again, at
    last every `longest` seconds.
    """
    changed = asyncio.Event()

    def look(old: Object | None, new: Object | None) -> None:
        if concerns(old) != concerns(new):
            changed.set()

    nodes.on_change(look)
    following = asyncio.create_task(nodes.run())
    try:
        await nodes.synced()
        backoff = Backoff(0.1, longest)
        while True:
            changed.clear()
            try:
                await asyncio.to_thread(apply, nodes.items())
            except (KernelError, OSError) as error:
                wait = backoff.next()
                log.warning("%s: %s; again in %.1f s", what, error, wait)
                await asyncio.sleep(wait)
                continue
            backoff.reset()
            await changed.wait()
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
