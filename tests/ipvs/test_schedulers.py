"""Every scheduler that can be configured: it is what the kernel schedules by, and where packets go says so.

All real servers weigh the same, as in kube-proxy. What tells most schedulers apart is that connections are held open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from ipaddress import ip_address

import pytest
from support.dual_net import CLIENTS, NODE, POD_PORT, PODS, DualNet
from support.ipvs import key
from support.proxy import Object, endpoint, feed, service, slice_of, state_of

from netkit.kernel.ipvs_values import SCHEDULERS, SOURCE_HASH_PORT, Transport, VirtualServer
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.configuration.apply import proxy_settings
from netkit.proxy.configuration.decode import decode
from netkit.proxy.configuration.defaults import for_linux, with_defaults
from netkit.proxy.configuration.validation import validated
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.modes import Site, backends
from netkit.proxy.settings import ProxySettings

FOUR = Family.IPV4
PLACES = ("172.30.0.47", "1.2.3.47", "5.6.7.47")
"""The Service's cluster IP, external IP and load balancer IP."""
PORT = 80
ONE_OF_TWO = {"p1", "p2"}


def settings(scheduler: str) -> ProxySettings:
    """As a configuration file says it."""
    text = (
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n"
        f'clusterCIDR: "10.244.0.0/16"\nipvs: {{scheduler: "{scheduler}"}}\n'
    )
    configuration = validated(for_linux(with_defaults(decode(text.encode()).configuration)))
    return proxy_settings(configuration, [ip_address(NODE[FOUR])])


def objects() -> Iterator[Object]:
    for name, protocol in (("tcp", "TCP"), ("udp", "UDP")):
        ports = [{"name": "p", "port": PORT, "protocol": protocol}]
        addresses = {"externalIPs": [PLACES[1]], "ingress": [{"ip": PLACES[2]}]}
        yield service(f"ns1/{name}", PLACES[0], ports, type="LoadBalancer", **addresses)
        points = [endpoint(addresses[FOUR], "node") for addresses in PODS.values()]
        yield slice_of(f"ns1/{name}", *points, ports=[{**ports[0], "port": POD_PORT}])


class Scheduled:
    """The Services under one scheduler, and connections to them."""

    def __init__(self, net: DualNet, backend: IPVSBackend, stack: ExitStack) -> None:
        self.net = net
        self.backend = backend
        self._stack = stack

    def hold(
        self, place: str = PLACES[0], source: tuple[str, int] | None = None, protocol: str = "TCP"
    ) -> str:
        """Connect and stay so: who answers."""
        flow = self.net.flow("client", FOUR, protocol, place, PORT, source=source)
        return self._stack.enter_context(closing(flow)).ask()[0]

    def call(self, place: str = PLACES[0], source: str = "") -> str:
        """Connect and close: who answers."""
        bound = (source, 0) if source else None
        with closing(self.net.flow("client", FOUR, "TCP", place, PORT, source=bound)) as flow:
            return flow.ask()[0]

    def calls(self, times: int = 6) -> list[str]:
        return [self.call() for _ in range(times)]


@asynccontextmanager
async def scheduled(net: DualNet, scheduler: str) -> AsyncIterator[Scheduled]:
    site = Site("node", net.node, net.directory / "xtables.lock")
    (backend,) = backends(settings(scheduler), site, [FOUR])
    assert isinstance(backend, IPVSBackend)
    state = state_of()
    feed(state, *objects())
    state.collect()
    try:
        await backend.sync(state, None)
        with ExitStack() as stack:
            yield Scheduled(net, backend, stack)
    finally:
        await backend.cleanup()
        backend.release()


def said(ns: Namespace) -> set[str]:
    """Scheduler and flags of all virtual servers, as ipvsadm says them."""
    lines = run(["ipvsadm", "-Sn"], ns=ns, check=True).stdout.decode().splitlines()
    return {line.partition(" -s ")[2] for line in lines if line.startswith("-A")}


async def test_the_one_configured_is_the_kernels(dual_net: DualNet) -> None:
    """Also when another one was there before: virtual servers are changed, not made anew."""
    drivers = Drivers.of(Site("node", dual_net.node, dual_net.directory / "xtables.lock").iptables(FOUR))
    state = state_of()
    feed(state, *objects())
    state.collect()
    backend = IPVSBackend("node", settings(""), drivers)
    try:
        for scheduler in (*SCHEDULERS, ""):
            backend = IPVSBackend("node", settings(scheduler), drivers)
            assert (await backend.sync(state, None)).wrote
            assert said(dual_net.node) == {"mh -b mh-port" if scheduler == "mh" else scheduler or "rr"}
            flags = SOURCE_HASH_PORT if scheduler == "mh" else 0
            assert set(drivers.servers.servers()) == {
                VirtualServer(key(f"{place}:{PORT}", transport), scheduler or "rr", 0, flags)
                for place in PLACES
                for transport in (Transport.TCP, Transport.UDP)
            }
    finally:
        await backend.cleanup()
        backend.release()


@pytest.mark.parametrize("scheduler", ["rr", "wrr"])
async def test_in_turn(dual_net: DualNet, scheduler: str) -> None:
    async with scheduled(dual_net, scheduler) as found:
        held = found.hold()
        other = (ONE_OF_TWO - {held}).pop()
        assert found.calls() == [other, held] * 3, "who is busy gets his share too"


@pytest.mark.parametrize("scheduler", ["lc", "wlc", "sed", "nq"])
async def test_new_connections_go_to_the_idle_one(dual_net: DualNet, scheduler: str) -> None:
    async with scheduled(dual_net, scheduler) as found:
        held = found.hold()
        other = (ONE_OF_TWO - {held}).pop()
        assert found.calls() == [other] * 6
        assert found.hold() == other
        assert {found.hold(), found.hold()} == ONE_OF_TWO, "now both are as busy"


async def test_one_source_has_one_endpoint(dual_net: DualNet) -> None:
    async with scheduled(dual_net, "sh") as found:
        answers = {source: {found.call(place, source) for place in (*PLACES, *PLACES)} for source in CLIENTS}
        assert all(len(pods) == 1 for pods in answers.values()), answers
        assert set.union(*answers.values()) == ONE_OF_TWO


async def test_one_source_with_its_port_has_one_endpoint(dual_net: DualNet) -> None:
    """Each address is a virtual server of its own, and knows nothing of the connections of the others."""
    async with scheduled(dual_net, "mh") as found:
        answers = {
            port: {found.hold(place, (CLIENTS[0], port), "UDP") for place in PLACES}
            for port in range(20001, 20017)
        }
        assert all(len(pods) == 1 for pods in answers.values()), answers
        assert set.union(*answers.values()) == ONE_OF_TWO


async def test_one_destination_has_one_endpoint(dual_net: DualNet) -> None:
    async with scheduled(dual_net, "dh") as found:
        for place in PLACES:
            found.hold(place)
            assert len({found.call(place, source) for source in CLIENTS}) == 1


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr", "ovf"])
async def test_one_destination_has_one_endpoint_until_that_is_overloaded(
    dual_net: DualNet, scheduler: str
) -> None:
    """Overloaded is who has more connections than weight, which is 1, while another has none."""
    async with scheduled(dual_net, scheduler) as found:
        first = found.call()
        assert found.calls() == [first] * 6
        assert [found.hold(), found.hold()] == [first] * 2
        assert found.hold() == (ONE_OF_TWO - {first}).pop()


async def test_one_for_all_however_busy(dual_net: DualNet) -> None:
    async with scheduled(dual_net, "fo") as found:
        assert len({found.hold() for _ in range(6)}) == 1
