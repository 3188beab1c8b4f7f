"""What the commands about nodes ask of the API: whether a node is ready, its schedulability, its end.

Called by `node_changes` and `node_draining`; works with the administrator's client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Final

from controlplane.client.client import Client, EventType
from controlplane.client.leases import LEASE_NAMESPACE
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name, namespace, uid
from controlplane.meta.timestamps import parse
from controlplane.resources.catalog import EVENT, LEASE, NODE, POD
from controlplane.resources.kind import Kind
from netkit.cluster.access import admin_client
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import Profile

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 0.1


class NoPodRange(ClusterError):
    """The cluster has no range of pod addresses left for a node."""


@asynccontextmanager
async def api(profile: Profile, server: str) -> AsyncIterator[Client]:
    """The administrator's client. Raises ClusterError when the API cannot be reached."""
    client = admin_client(profile, server)
    try:
        with _reached(server):
            yield client
    finally:
        await client.close()


@contextmanager
def _reached(server: str) -> Iterator[None]:
    try:
        yield
    except ConnectionFailed as error:
        raise ClusterError(f"the API at {server} does not answer: {error}") from None


async def until_ready(client: Client, node: str, since: datetime, address: str = "") -> None:
    """Return when the node has said after `since` that it is Ready, and has its pod range (and the address).

    Raises NoPodRange when there is no range left.
    """
    ready = asyncio.create_task(_ready(client, node, since, address))
    refused = asyncio.create_task(_refused(client, node))
    try:
        await asyncio.wait({ready, refused}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            refused.result()
            raise NoPodRange(
                f"there is no range of pod addresses left for {node}",
                "remove another node first, or make a cluster with a larger network.podSubnet",
            )
        ready.result()
    finally:
        for task in (ready, refused):
            task.cancel()
        await asyncio.gather(ready, refused, return_exceptions=True)


async def set_unschedulable(client: Client, node: str, value: bool) -> bool:
    """Cordon or uncordon; whether that changed anything. Raises NotFound."""
    found = await client.get(NODE, node)
    if bool(dig(found, "spec", "unschedulable")) == value:
        return False
    await client.patch(NODE, node, {"spec": {"unschedulable": value or None}})
    return True


async def pods_of(client: Client, node: str) -> list[Object]:
    """The pods that are bound to the node."""
    return (await client.list(POD, field_selector=f"spec.nodeName={node}")).items


async def is_registered(client: Client, node: str) -> bool:
    """Whether there is a Node object of that name."""
    try:
        await client.get(NODE, node)
    except NotFound:
        return False
    return True


async def forget(client: Client, node: str) -> None:
    """Delete the Node object of a node that is gone for ever, and the pods that went with it."""
    for pod in await pods_of(client, node):
        with suppress(NotFound, Conflict):
            await client.delete(POD, name(pod), namespace(pod), grace=0, uid=uid(pod))
    with suppress(NotFound):
        await client.delete(NODE, node)


async def until(
    client: Client, kind: Kind, where: str, condition: Callable[[Object], bool], selector: str
) -> None:
    """Return when an object in the namespace `where` that the field selector matches is as the condition wants it."""
    while True:
        try:
            events = client.watch(kind, where, field_selector=selector, bookmarks=False)
            async with aclosing(events) as following:
                async for event in following:
                    if event.type is not EventType.DELETED and condition(event.object):
                        return
        except ConnectionFailed as error:
            log.info("%s: asked again", error)
            await asyncio.sleep(_AGAIN_SECONDS)


async def _ready(client: Client, node: str, since: datetime, address: str) -> None:
    """A Lease that is renewed tells that the node lives: its conditions may be those from before."""
    this = f"metadata.name={node}"
    await until(client, LEASE, LEASE_NAMESPACE, lambda found: _renewed(found) >= since, this)
    await until(client, NODE, "", lambda found: _is_ready(found, address), this)


def _renewed(lease: Object) -> datetime:
    return parse(dig(lease, "spec", "renewTime", default="1970-01-01T00:00:00Z"))


def _is_ready(node: Object, address: str) -> bool:
    addresses = [item["address"] for item in dig(node, "status", "addresses", default=())]
    return (
        conditions.status_of(node, "Ready") == "True"
        and conditions.status_of(node, "NetworkUnavailable") == "False"
        and bool(dig(node, "spec", "podCIDR"))
        and (not address or address in addresses)
    )


async def _refused(client: Client, node: str) -> None:
    """Return when the controller that gives pod ranges has said that it has none for this very node."""
    selector = f"involvedObject.kind=Node,involvedObject.name={node},reason=CIDRNotAvailable"
    events = client.watch(EVENT, field_selector=selector, bookmarks=False)
    async with aclosing(events) as following:
        async for event in following:
            with suppress(NotFound):
                found = await client.get(NODE, node)
                about = dig(event.object, "involvedObject", "uid", default="")
                if about == uid(found) and not dig(found, "spec", "podCIDR"):
                    return
    await asyncio.Event().wait()
