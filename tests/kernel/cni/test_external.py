"""The mode `external`: real plug-ins of others, called by nodes for their pods."""

from __future__ import annotations

import asyncio
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from support.cni import DEBIAN, debian_plugins
from support.kernel import eventually, own_host, source_seen
from support.packets import PROTOCOLS, forwarded
from support.podnet import Net, pod_network

from netkit.cni.cache import Cache
from netkit.cni.chain import Runtime
from netkit.cni.conflist import Conflist, parse
from netkit.cni.errors import PluginFailed
from netkit.cni.install import install
from netkit.cni.network import cache_directory
from netkit.kernel import netns, process, rtnl_read
from netkit.podnet.modes import NetworkMode, Setting
from netkit.podnet.pod import PodRef, PortMapping, RuntimeConfig, SandboxFailed

EXTERNAL = Setting(NetworkMode.EXTERNAL, node_routes=True)
NODE1 = "172.18.0.2"

pytestmark = pytest.mark.skipif(not debian_plugins(), reason="needs Debian's containernetworking-plugins")


def conflist(*more: dict[str, Any], version: str = "1.0.0", **bridge: Any) -> Conflist:
    first = {
        "type": "bridge", "bridge": "cbr0", "isGateway": True, "hairpinMode": True,
        "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
        **bridge,
    }  # fmt: skip
    return parse(json.dumps({"cniVersion": version, "name": "others", "plugins": [first, *more]}))


PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}


def external(place: Path, listed: Conflist, *, path: tuple[str, ...] = (DEBIAN,), **options: Any) -> Any:
    options = {"setting": EXTERNAL, **options}
    return pod_network(place, conflist=listed, plugins=path, **options)


def left_of(net: Net, node: str) -> list[str]:
    """What is left of pods on the node."""
    state = net.place / "state" / node / "cni"
    leases = [path.name for path in state.glob("networks/others/10.*")]
    links = [name for name in rtnl_read.links(net.ns(node)) if name.startswith("veth")]
    spaces = [name for name in netns.names() if name.startswith("kt.default.")]
    saved = process.run(["iptables-legacy-save"], ns=net.ns(node), check=True).stdout.decode()
    rules = [line for line in saved.splitlines() if "CNI-DN" in line]
    return leases + links + spaces + rules + [path.name for path in (state / "results").glob("*")]


@own_host
@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
async def test_pods_of_others_plugins_reach_each_other(tmp_path: Path, version: str) -> None:
    async with external(tmp_path, conflist(PORTMAP, version=version)) as net:
        places = [("node1", "a"), ("node1", "b"), ("node2", "c")]
        pods = {name: await net.pod(node, name) for node, name in places}
        assert {name: pod.addresses for name, (pod, _) in pods.items()} == {
            "a": ("10.244.1.2",), "b": ("10.244.1.3",), "c": ("10.244.2.2",),
        }  # fmt: skip
        for sender, receiver in permutations(pods, 2):
            target = pods[receiver][0].addresses[0]
            for protocol, send in PROTOCOLS.items():
                size = 300_000 if protocol == "tcp" else 1500
                seen = await asyncio.to_thread(send, pods[sender][1], pods[receiver][1], target, size)
                assert seen == pods[sender][0].addresses[0], (sender, receiver, protocol)
        assert pods["a"][0].mtu == 1500
        assert pods["a"][0].link in rtnl_read.links(net.ns("node1"))
        for name in pods:
            node = "node2" if name == "c" else "node1"
            await net.agents[node].network.remove(f"{name}-0123456789")
        net.close()
        for node in ("node1", "node2"):
            await eventually(lambda n=node: left_of(net, n) == [])


@own_host
async def test_capabilities_reach_the_plugins_that_heed_them(tmp_path: Path) -> None:
    async with external(tmp_path, conflist(PORTMAP)) as net:
        _, web = await net.pod("node1", "web", ports=(PortMapping(8080, 80),))
        for caller, target in ((net.ns("client"), NODE1), (net.ns("node1"), "127.0.0.1")):
            assert await asyncio.to_thread(forwarded, "tcp", caller, web, ("10.244.1.2", 80), (target, 8080))
        (cached,) = Cache(cache_directory(net.place / "state" / "node1")).all()
        assert cached.capabilities == {
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        }
        # Debian's portmap looks for rules of IPv6 as well, which a pod without such an address has not.
        with pytest.raises(PluginFailed, match=r'plugin type="portmap" failed \(check\).*ipv6'):
            Runtime(net.ns("node1"), (DEBIAN,)).check(cached, web.path)
        await net.agents["node1"].network.remove("web-0123456789")
        net.close()
        await eventually(lambda: left_of(net, "node1") == [])


@own_host
async def test_what_an_earlier_agent_made_is_adopted_or_given_back(tmp_path: Path) -> None:
    async with external(tmp_path, conflist(PORTMAP), nodes=1) as net:
        kept, _ = await net.pod("node1", "kept", uid="u1", ports=(PortMapping(8080, 80),))
        lost, _ = await net.pod("node1", "lost", uid="u2", ports=(PortMapping(9090, 80),))
        torn, _ = await net.pod("node1", "torn", uid="u3")
        await net.stop("node1")
        net.close()
        netns.delete(lost.netns)
        # As if the agent had been killed in the middle of an ADD.
        (path,) = [
            p for p in cache_directory(tmp_path / "state" / "node1").iterdir() if '"u3"' in p.read_text()
        ]
        path.write_text(json.dumps({**json.loads(path.read_text()), "result": None}))
        # The next agent has another list: what stands is taken off by the one it was made with.
        net.conflist = conflist(bridge="other0")
        agent = await net.start("node1")
        assert await agent.network.list() == {"u1": kept}
        assert not netns.exists(torn.netns)
        with netns.open_namespace(kept.netns) as ns:
            assert (
                await asyncio.to_thread(source_seen, ns, net.ns("node1"), "10.244.1.1", 7000) == "10.244.1.2"
            )
        await agent.network.remove("u1")
        await eventually(lambda: left_of(net, "node1") == [])


@own_host
async def test_a_plugins_refusal_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    small = conflist(PORTMAP, ipam={"type": "host-local", "subnet": "10.9.9.0/30"})
    async with external(tmp_path, small, nodes=1) as net:
        network = net.agents["node1"].network
        wishes = RuntimeConfig((PortMapping(8080, 80),))
        first = await network.add(PodRef("default", "first", "u1"))
        assert first.addresses == ("10.9.9.2",)
        why = r'failed to setup network for sandbox.*plugin type="bridge" failed \(add\):.*no IP addresses available'
        with pytest.raises(SandboxFailed, match=why):
            await network.add(PodRef("default", "web", "u2"), config=wishes)
        assert list(await network.list()) == ["u1"]
        await network.remove("u1")
        await eventually(lambda: left_of(net, "node1") == [])
        # What was given back can be given again.
        again = await network.add(PodRef("default", "web", "u2"), config=wishes)
        assert again.addresses == ("10.9.9.2",)
        await network.remove("u2")
        await eventually(lambda: left_of(net, "node1") == [])


@own_host
async def test_a_plugin_that_cannot_take_off_is_asked_again(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "moody"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\ncat > /dev/null\n"
        f'if [ "$CNI_COMMAND" = DEL ] && [ ! -e {tmp_path}/calm ]; then'
        """ echo '{"cniVersion":"1.0.0","code":11,"msg":"not now"}'; exit 1; fi\n"""
        'if [ "$CNI_COMMAND" = ADD ]; then echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.9/32"}]}\'; fi\n'
    )
    program.chmod(0o755)
    moody = parse('{"cniVersion": "1.0.0", "name": "others", "plugins": [{"type": "moody"}]}')
    async with external(tmp_path, moody, path=(str(program.parent),), nodes=1) as net:
        sandbox, _ = await net.pod("node1", "a", uid="u")
        assert sandbox.addresses == ("10.9.9.9",)
        network = net.agents["node1"].network
        with pytest.raises(SandboxFailed, match=r'plugin type="moody" failed \(del\): not now'):
            await network.remove("u")
        assert list(await network.list()) == ["u"]
        (tmp_path / "calm").touch()
        await network.remove("u")
        assert await network.list() == {}
        net.close()
        await eventually(lambda: left_of(net, "node1") == [])


@own_host
@pytest.mark.parametrize("attach", ["bridge", "ptp"])
async def test_our_own_plugin_serves_too(tmp_path: Path, attach: str) -> None:
    install(tmp_path / "bin")
    own = parse(json.dumps({
        "cniVersion": "1.0.0", "name": "others",
        "plugins": [
            {"type": "netkit-cni", "attach": attach, "ipam": {"type": "netkit", "subnet": "usePodCidr"}}, PORTMAP,
        ],
    }))  # fmt: skip
    async with external(tmp_path, own, path=(str(tmp_path / "bin"), DEBIAN)) as net:
        _, a = await net.pod("node1", "a", ports=(PortMapping(8080, 80),))
        _, c = await net.pod("node2", "c")
        assert await asyncio.to_thread(source_seen, a, c, "10.244.2.2") == "10.244.1.2"
        assert (
            await asyncio.to_thread(forwarded, "tcp", c, a, ("10.244.1.2", 80), (NODE1, 8080)) == "10.244.2.2"
        )
        for node, name in (("node1", "a"), ("node2", "c")):
            await net.agents[node].network.remove(f"{name}-0123456789")
        net.close()
        await eventually(lambda: left_of(net, "node1") == [])


@own_host
async def test_without_node_routes_other_nodes_are_the_plugins_affair(tmp_path: Path) -> None:
    async with external(tmp_path, conflist(), setting=Setting(NetworkMode.EXTERNAL)) as net:
        await net.pod("node1", "a")
        node1 = net.ns("node1")
        command = "ip route add 10.244.2.0/24 via 172.18.0.3"
        process.run(command.split(), ns=node1, check=True)
        await net.stop("node1")
        await net.start("node1")
        routes = {str(route.target) for route in rtnl_read.routes(node1)}
        assert "10.244.2.0/24" in routes
        saved = process.run(["iptables-legacy-save"], ns=node1, check=True).stdout.decode()
        assert "FLANNEL" not in saved


@own_host
async def test_plugins_of_newer_lists_give_back_what_nobody_knows(tmp_path: Path) -> None:
    install(tmp_path / "bin")
    own = parse(json.dumps({
        "cniVersion": "1.1.0", "name": "others",
        "plugins": [{"type": "netkit-cni", "ipam": {"type": "netkit", "subnet": "usePodCidr"}}],
    }))  # fmt: skip
    async with external(tmp_path, own, path=(str(tmp_path / "bin"),), nodes=1) as net:
        kept, _ = await net.pod("node1", "kept", uid="u1")
        lost, _ = await net.pod("node1", "lost", uid="u2")
        await net.stop("node1")
        net.close()
        state = tmp_path / "state" / "node1"
        (path,) = [p for p in cache_directory(state).iterdir() if '"u2"' in p.read_text()]
        path.unlink()
        agent = await net.start("node1")
        assert await agent.network.list() == {"u1": kept}
        assert not netns.exists(lost.netns)
        made = json.loads((state / "cni" / "networks" / "others.json").read_text())["attachments"]
        assert [item["link"] for item in made] == [kept.link]
        await agent.network.remove("u1")
        await eventually(lambda: left_of(net, "node1") == [])
