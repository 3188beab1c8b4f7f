"""The table of kube-proxy as nft itself makes it of kube-proxy's words, beside ours: the same list, the same bytes."""

from __future__ import annotations

import re

import pytest
from support.kernel import own_host
from support.proxy import Object, state_of
from unit.proxy.upstream import nftables_tables as facts
from unit.proxy.upstream.world import NODE, SERVICE_RANGES, SETTINGS

from netkit.kernel.netns import HOST
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.backend import NodeFacts
from netkit.proxy.modes import Site, backends
from netkit.proxy.settings import ProxyMode, ProxySettings

pytestmark = pytest.mark.root

CASES = {
    "overall": (facts.OVERALL_OBJECTS, facts.OVERALL),
    "leading zeros": (facts.BAD_ADDRESSES_OBJECTS, facts.BAD_ADDRESSES),
    "nothing": ((), ""),
}


def blocks(listing: str) -> dict[str, str]:
    """Each chain, set and map as nft prints it. Base chains come in the order of their making, so by name."""
    found = re.findall(r"^\t((?:chain|set|map) \S+) \{\n(.*?)^\t\}\n", listing, re.DOTALL | re.MULTILINE)
    assert found
    return {name: unnumbered(body) for name, body in found}


def unnumbered(text: str) -> str:
    """Without the handles and the names that the kernel, or we, give to anonymous sets."""
    return re.sub(
        r"(?<= set )(__\w+|[\w-]{7})(?= )", "__set", re.sub(r"handle \d+|^ip \S+ \S+ \d+.*\n", "", text)
    )


async def listings(objects: tuple[Object, ...], text: str) -> tuple[list[str], list[str]]:
    """What nft lists, in words and as the kernel's expressions: of kube-proxy's table, then of ours."""
    run(["nft", "-f", "-"], check=True, input=facts.script(facts.read(facts.FRAME, text)).encode())
    theirs = [run(command, check=True).stdout.decode() for command in COMMANDS]
    run(["nft", "delete", "table", "ip", "kube-proxy"], check=True)
    settings = ProxySettings(mode=ProxyMode.NFTABLES, **SETTINGS)
    run(["ip", "address", "add", "192.168.0.2/24", "dev", "lo"], check=True)
    (backend,) = backends(settings, Site(NODE, HOST), [Family.IPV4])
    backend.configure(NodeFacts(service_cidrs=SERVICE_RANGES))
    await backend.sync(state_of(*objects), None)
    ours = [run(command, check=True).stdout.decode() for command in COMMANDS]
    await backend.cleanup()
    run(["ip", "address", "del", "192.168.0.2/24", "dev", "lo"], check=True)
    return theirs, ours


COMMANDS = (
    ["nft", "list", "table", "ip", "kube-proxy"],
    ["nft", "--debug=netlink", "list", "table", "ip", "kube-proxy"],
)


@pytest.mark.parametrize("case", CASES)
@own_host
async def test_the_same_table(case: str) -> None:
    theirs, ours = await listings(*CASES[case])
    assert blocks(ours[0]) == blocks(theirs[0])
    # Expressions come before the listing proper, one group for each rule.
    assert sorted(expressions(ours[1])) == sorted(expressions(theirs[1]))


def expressions(listing: str) -> list[str]:
    """The groups of kernel expressions of all rules, with the chain they are in."""
    found = re.findall(r"^ip kube-proxy (\S+) \d+.*\n((?: {2}.*\n)+)", listing, re.MULTILINE)
    assert found
    return [f"{chain}\n{unnumbered(group)}" for chain, group in found]
