"""Services and EndpointSlices of any number for the proxy's benchmarks, and where such a benchmark takes place."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.proxy import Object, feed, service, slice_of

from netkit.kernel import netns, rtnl, sysctl
from netkit.kernel.iptables import Variant
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.proxy.addresses import Family
from netkit.proxy.modes import Site
from netkit.proxy.settings import NftablesLayout, ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

NODE = "bench"
ENDPOINT_PORT = 8080
_serial = iter(range(1_000_000))


def cluster_ip(index: int) -> str:
    """The address of the Service of this number, inside 10.96.0.0/12."""
    return f"10.{96 + index // 62500}.{index // 250 % 250}.{index % 250 + 1}"


def service_objects(
    index: int, endpoints: int, *, moved: bool = False, at: str = "", port: int = ENDPOINT_PORT
) -> tuple[Object, Object]:
    """One Service and its slice. `moved`: its first endpoint has another address; `at`: its only endpoint."""
    name = f"ns{index % 20}/svc-{index}"
    serials = range(index * endpoints, (index + 1) * endpoints)
    addresses = [f"10.244.{serial // 250 % 250}.{serial % 250 + 2}" for serial in serials]
    if moved:
        addresses[0] = "10.244.251.7"
    ports = [{"name": "http", "port": port}]
    return (
        service(name, cluster_ip(index), [{"name": "http", "port": 80}]),
        slice_of(name, *([at] if at else addresses), ports=ports),
    )


def state_of(objects: list[Object]) -> ProxyState:
    """A state that holds the objects and takes them for synced."""
    state = ProxyState(Family.IPV4)
    feed(state, *objects)
    state.collect()
    state.mark_synced()
    return state


class Mode:
    """A mode under test: `iptables-legacy`, `iptables-nft`, `nftables`, `nftables-compact`, `ipvs` or `userspace`."""

    def __init__(self, name: str) -> None:
        self.name = name
        first, _, second = name.partition("-")
        self.mode = ProxyMode(first)
        self.variant = Variant(second) if self.mode is ProxyMode.IPTABLES else None
        layout = NftablesLayout.COMPACT if second == "compact" else NftablesLayout.KUBE_PROXY
        self.settings = ProxySettings(
            mode=self.mode,
            nftables_layout=layout,
            cluster_cidr="10.244.0.0/16",
            node_address="192.168.0.2",
        )

    def site(self, space: Namespace, directory: Path) -> Site:
        return Site(NODE, space, directory / "xtables.lock", self.variant)


@contextmanager
def space() -> Iterator[tuple[Namespace, Path]]:
    """A network namespace that forwards, and a directory; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        ledger = Ledger(directory, "bench")
        name = f"nkbench{os.getpid()}x{next(_serial)}"
        with netns.create(name, ledger) as made:
            try:
                with Rtnl(made) as links:
                    links.apply(rtnl.link_up("lo"))
                sysctl.write(made, "net.ipv4.ip_forward", 1)
                yield made, directory
            finally:
                netns.delete(name, ledger)
