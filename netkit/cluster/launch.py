"""The first process of a cluster: builds the machines, opens the API's sockets, then becomes the keeper.

Forked by `up`, which follows its progress over a pipe of JSON lines. It leaves the terminal's session, so that the
cluster outlives the command.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from controlplane.apiserver.pki import PkiError
from netkit.cluster.certificates import certify
from netkit.cluster.keeper import Keeper
from netkit.cluster.log import log_to
from netkit.cluster.membership import FABRIC, Membership
from netkit.cluster.parts import Sockets
from netkit.cluster.plan import API_PORT, CONTROL_PLANE, Plan
from netkit.cluster.profile import Profile
from netkit.cluster.topology import Role
from netkit.fabric.build import Fabric, build
from netkit.fabric.shaping import shape, shaped
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace, open_namespace, socket_in

log = logging.getLogger(__name__)

T = TypeVar("T")

_BACKLOG = 1024


def launch(plan: Plan, profile: Profile, loopback: socket.socket, writer: int) -> int:
    """Be the cluster's first process; returns only when it could not be built. `writer`: the progress pipe."""
    os.setsid()
    profile.leave_lock()
    log_to(profile.logs / "keeper.log")
    progress = _Progress(writer)
    try:
        fabric = progress.step(
            _machines(plan),
            lambda: _build(plan, profile),
        )
        progress.step("certificates", lambda: certify(plan, profile))
        # A node's namespace that a keeper has open, and so every part, would outlive the node.
        names = [CONTROL_PLANE, *(router.name for router in plan.routers)]
        staying = {name: open_namespace(fabric.machines[name].ns.name) for name in names}
        fabric.close()
        sockets = Sockets(loopback, _listen(staying[CONTROL_PLANE], str(plan.control_plane)))
        membership = Membership(plan, profile, sockets, staying)
        membership.begin()
    except (KernelError, PkiError, OSError, ValueError) as error:
        log.error("%s: not built: %s", plan.config.name, error)
        progress.tell(error=str(error), hint=_hint(error))
        return 1
    # What is imported lives for ever and is shared with every part: the collector shall not touch, and so copy, it.
    gc.collect()
    gc.freeze()
    keeper = Keeper(profile.directory, profile.ledger, membership)
    progress.tell(started=True)
    progress.close()
    keeper.run()


def _build(plan: Plan, profile: Profile) -> Fabric:
    with Ledger(profile.ledger, FABRIC) as ledger:
        fabric = build(plan.fabric(), ledger)
    if shaped(fabric.spec):
        asyncio.run(shape(fabric, profile.switch_lock, netem=plan.netem))
    return fabric


def _machines(plan: Plan) -> str:
    """What is built, for people."""
    found = [f"{len(plan.nodes)} node(s), control plane"]
    for role, one in ((Role.CLIENT, "outside client"), (Role.ROUTER, "router")):
        if count := len(plan.topology.of(role)):
            found.append(one if count == 1 else f"{count} {one}s")
    segments = plan.topology.segments
    on = str(segments[0].subnet) if len(segments) == 1 else f"{len(segments)} segments"
    return f"{', '.join(found)} on {on}"


def _listen(ns: Namespace, address: str) -> socket.socket:
    """The API's socket on the segment."""
    sock = socket_in(ns, socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, API_PORT))
    sock.listen(_BACKLOG)
    return sock


def _hint(error: Exception) -> str:
    if isinstance(error, KernelError):
        if error.is_unsupported:
            return error.hint or "this kernel lacks a feature; netkit doctor shows which and how to get it"
        if error.is_permission:
            return error.hint or "network namespaces need root with CAP_NET_ADMIN and CAP_SYS_ADMIN"
        return error.hint
    return ""


class _Progress:
    """Tells the waiting command what is done. A command that is gone does not matter."""

    def __init__(self, writer: int) -> None:
        self._writer = writer

    def step(self, text: str, work: Callable[[], T]) -> T:
        begin = time.monotonic()
        result = work()
        self.tell(text=text, seconds=time.monotonic() - begin)
        return result

    def tell(self, **message: object) -> None:
        try:
            os.write(self._writer, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            log.info("nobody waits for the start any more")

    def close(self) -> None:
        os.close(self._writer)
