"""Single rules, set elements and servers of a node's kernel, and how to take each one away.

Read from the kernel by the programs that users have, not by what wrote them. `kind` is what a rule looks like without
its addresses, numbers and names: rules of one kind do the same for different Services.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.settings import ProxyMode
from rows.varieties import Variety

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """What can be taken away: `remove` does it, `put_back` undoes that; without it everything must be written anew."""

    kind: str
    what: str
    remove: Command
    put_back: Command = ()


def mutants(variety: Variety, ns: Namespace) -> list[Mutant]:
    """Everything of ours that stands in a node's kernel."""
    if variety.mode is ProxyMode.NFTABLES:
        return [mutant for family in ("ip", "ip6") for mutant in _nftables(ns, family)]
    found = [
        mutant
        for program in ("iptables", "ip6tables")
        for mutant in _iptables(ns, f"{program}-{variety.variant or 'legacy'}")
    ]
    if variety.mode is ProxyMode.IPVS:
        found += [*_ipset(ns), *_ipvs(ns), *_addresses(ns)]
    return found


def _text(ns: Namespace, *argv: str) -> str:
    return run(argv, ns=ns, check=True).stdout.decode()


_IPV4 = re.compile(r"\b(?:\d+\.){3}\d+(?:/\d+)?\b")
_IPV6 = re.compile(r"\[?\b[0-9a-f]+:[0-9a-f:]*:[0-9a-f:]*(?:/\d+)?\]?")
_CHAIN = re.compile(r"\bKUBE-(SVC|SVL|SEP|EXT|FW)-[A-Z2-7]{16}\b")
_COMMENT = re.compile(r'-m comment --comment (?:"[^"]*"|\S+) ?')
_IPTABLES_VALUES = re.compile(r"(--(?:dport|probability|seconds|to-destination|to-ports|vport)) \S+")
_INTERFACE = re.compile(r"-i \S+")
_MARK = re.compile(r"\b0x[1-9a-f][0-9a-f]*\b")
_PROTOCOL = re.compile(r"-[pm] (?:tcp|udp|sctp)\b")


def _iptables(ns: Namespace, program: str) -> Iterator[Mutant]:
    saved = _text(ns, f"{program}-save")
    filled = {line.split()[1] for line in saved.splitlines() if line.startswith("-A ")}
    table, numbers = "", dict[str, int]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:], {}
        if not line.startswith("-A "):
            continue
        chain = line.split()[1]
        number = numbers[chain] = numbers.get(chain, 0) + 1
        target = line.rpartition(" -j ")[2].split()[0]
        if "KUBE-" not in line or (target.startswith("KUBE-") and target not in filled):
            continue  # not ours, or the way into a chain that is empty just now
        arguments = (program, "-w", "5", "-t", table)
        yield Mutant(
            f"{table} {_iptables_kind(line[3:])}",
            f"{program} -t {table} {line}",
            (*arguments, "-D", chain, str(number)),
            (*arguments, "-I", chain, str(number), *shlex.split(line)[2:]),
        )


def _iptables_kind(rule: str) -> str:
    rule = _CHAIN.sub(r"KUBE-\1", _COMMENT.sub("", rule))
    rule = _PROTOCOL.sub("", _IPTABLES_VALUES.sub(r"\1", rule))
    kept = {"127.0.0.0/8": "LOOPBACK", "::1/128": "LOOPBACK"}
    for address, name in kept.items():
        rule = rule.replace(address, name)
    rule = _INTERFACE.sub("-i X", _MARK.sub("M", rule))
    return " ".join(_IPV6.sub("A", _IPV4.sub("A", rule)).split())


_OBJECT = re.compile(r"^\t(set|map|chain) (\S+) \{")
_HANDLE = re.compile(r"^\t\t(.*) # handle (\d+)$")
_NAME = re.compile(r"\b([a-z]+)-[A-Z2-7]{8}-\S+")
_PAIRS = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"\b\d+\b")


def _nftables(ns: Namespace, family: str) -> Iterator[Mutant]:
    done = run(["nft", "-a", "list", "table", family, "kube-proxy"], ns=ns)
    text = re.sub(r",\n\t+", ", ", done.stdout.decode())
    kind = name = ""
    for line in text.splitlines():
        if found := _OBJECT.match(line):
            kind, name = found.groups()
        elif kind == "chain" and (rule := _HANDLE.match(line)):
            yield Mutant(
                f"chain {_nft_kind(name)}: {_nft_kind(rule[1])}",
                f"{family} {name}: {rule[1]}",
                ("nft", "delete", "rule", family, "kube-proxy", name, "handle", rule[2]),
            )
        elif kind != "chain" and line.strip().startswith("elements = {"):
            inside = line.strip().removeprefix("elements = {").rstrip("} ")
            for element in inside.split(", "):
                key = re.split(r" : | comment | timeout | expires ", element.strip())[0]
                yield Mutant(
                    f"{kind} {_nft_kind(name)}",
                    f"{family} {name} {{ {element.strip()} }}",
                    ("nft", "delete", "element", family, "kube-proxy", name, "{", key, "}"),
                )


def _nft_kind(text: str) -> str:
    text = _NAME.sub(r"\1", text)
    text = _IPV6.sub("A", _IPV4.sub("A", _PAIRS.sub("{}", text)))
    text = text.replace("ip6 ", "ip ").replace("icmpv6", "icmp")
    return _NUMBER.sub("N", text)


def _ipset(ns: Namespace) -> Iterator[Mutant]:
    for line in _text(ns, "ipset", "save").splitlines():
        words = line.split()
        if words[:1] == ["add"] and words[1].startswith("KUBE-"):
            name, entry = words[1], words[2]
            kind = f"ipset {name.replace('KUBE-6-', 'KUBE-')}"
            yield Mutant(
                kind, f"{name} {entry}", ("ipset", "del", name, entry), ("ipset", "add", name, entry)
            )


def _ipvs(ns: Namespace) -> Iterator[Mutant]:
    for line in _text(ns, "ipvsadm", "-S", "-n").splitlines():
        words = line.split()
        remove = {"-A": "-D", "-a": "-d"}[words[0]]
        kept = 5 if words[0] == "-a" else 3
        kind = "real server" if words[0] == "-a" else "virtual server"
        persistent = " persistent" if "-p" in words else ""
        yield Mutant(kind + persistent, line, ("ipvsadm", remove, *words[1:kept]), ("ipvsadm", *words))


def _addresses(ns: Namespace) -> Iterator[Mutant]:
    for line in _text(ns, "ip", "-o", "address", "show", "dev", "kube-ipvs0").splitlines():
        address = line.split()[3]
        if address.startswith("fe80:"):
            continue
        arguments = (address, "dev", "kube-ipvs0")
        yield Mutant(
            "address of kube-ipvs0",
            line,
            ("ip", "address", "del", *arguments),
            ("ip", "address", "add", *arguments),
        )


def take(command: Sequence[str], ns: Namespace) -> None:
    """Run one of a mutant's commands. Raises CommandFailed."""
    run(command, ns=ns, check=True)
