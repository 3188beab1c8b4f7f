"""The IPVS mode of one node in a network of two nodes, pods and an outside client, and the objects it is given."""

from __future__ import annotations

from support.ipvs import key
from support.proxy import Object, endpoint, feed, service, slice_of, state_of
from support.proxy_net import NODE1, PODS, Net, Reply

from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.ipvs_values import RealServer, Target
from netkit.kernel.process import run
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.listing import differences
from netkit.proxy.settings import ProxySettings

VIP, EXTERNAL, BALANCER = "172.30.0.41", "1.2.3.4", "5.6.7.8"
PORT = 80
NODE_PORT = 30001
SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16", node_address=NODE1)


def at(pod: str) -> Object:
    """A pod as an endpoint."""
    node, address = PODS[pod]
    return endpoint(address, node)


def wanted(**spec) -> Object:
    """The Service, which can be called by addresses of all kinds."""
    protocol = spec.pop("protocol", "TCP")
    ports = [{"name": "p", "port": PORT, "nodePort": NODE_PORT, "protocol": protocol}]
    return service(
        "ns1/svc1",
        VIP,
        ports,
        **{"type": "LoadBalancer", "externalIPs": [EXTERNAL], "ingress": [{"ip": BALANCER}], **spec},
    )


def behind(*pods: str, protocol: str = "TCP", port: int = 8080) -> Object:
    """Its endpoints."""
    ports = [{"name": "p", "port": port, "protocol": protocol}]
    return slice_of("ns1/svc1", *map(at, pods), ports=ports)


class Cluster:
    """The network and the back end of its first node."""

    def __init__(self, net: Net, settings: ProxySettings = SETTINGS, look_seconds: float = 60.0) -> None:
        self.net = net
        iptables = IPTables(net.node, Variant.LEGACY, lock_file=net.directory / "xtables.lock")
        self.drivers = Drivers.of(iptables)
        self.backend = IPVSBackend("node1", settings, self.drivers, look_seconds=look_seconds)
        self.state = state_of()

    async def serve(self, *objects: Object) -> None:
        feed(self.state, *objects)
        await self.backend.sync(self.state, self.state.collect())
        self.state.mark_synced()

    async def no_differences(self) -> None:
        found = differences(await self.backend.wanted(self.state), await self.backend.standing())
        assert found == ()

    def seen(self, caller: str, address: str, port: int = PORT, *, times: int = 6, **how) -> set[str]:
        """Who answers, as `pod` if he sees the caller and `pod!` if he sees somebody else; or the refusal."""
        own = how.get("source") or (PODS[caller][1] if caller in PODS else "192.168.0.100")
        found = set()
        for _ in range(times):
            reply = self.net.call(caller, address, port, **how)
            if isinstance(reply, Reply):
                found.add(reply.pod if reply.seen == own else f"{reply.pod}!")
            else:
                found.add(reply)
        return found

    def reals(self) -> dict[Target, RealServer]:
        """The real servers of the cluster IP."""
        return {real.target: real for real in self.drivers.servers.real_servers(key(f"{VIP}:{PORT}"))}

    async def taken_away(self) -> None:
        """Remove everything, and look that nothing is left."""
        await self.backend.cleanup()
        self.backend.release()
        command = (
            "ipvsadm -Sn; ipset list -n; iptables-legacy-save | grep KUBE; ip -o link show kube-ipvs0 2>&1"
        )
        text = run(["sh", "-c", command], ns=self.net.node).stdout.decode()
        assert text == 'Device "kube-ipvs0" does not exist.\n', f"left behind: {text}"
