"""Single rules, set elements and servers of a node's kernel, and how to take each one away.

Read from the kernel by the programs that users have, not by what wrote them. `kind` is what a rule looks like without
its addresses, numbers and names: rules of one kind do the same for different Services.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

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
    version: int
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
    if variety.mode is ProxyMode.USERSPACE:
        # The ports of the proxies are others each time.
        found = [replace(mutant, what=_PROXY_PORT.sub(r"\1 N", mutant.what)) for mutant in found]
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
_PROXY_PORT = re.compile(r"(--to-(?:destination|ports)) \S+")
_INTERFACE = re.compile(r"-i \S+")
_MARK = re.compile(r"\b0x0*[1-9a-f][0-9a-f]*\b")
_PROTOCOL = re.compile(r"-[pm] (?:tcp|udp|sctp)\b")


def _iptables(ns: Namespace, program: str) -> Iterator[Mutant]:
    saved = _text(ns, f"{program}-save")
    filled = _filled(saved)
    table, numbers = "", dict[str, int]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:], {}
        if not line.startswith("-A "):
            continue
        chain = line.split()[1]
        number = numbers[chain] = numbers.get(chain, 0) + 1
        target = line.rpartition(" -j ")[2].split()[0]
        if "KUBE-" not in line or (target.startswith("KUBE-") and (table, target) not in filled):
            continue  # not ours, or the way into a chain that is empty just now
        arguments = (program, "-w", "5", "-t", table)
        yield Mutant(
            f"{table} {_iptables_kind(line[3:])}",
            f"{program} -t {table} {line}",
            6 if program.startswith("ip6") else 4,
            (*arguments, "-D", chain, str(number)),
            (*arguments, "-I", chain, str(number), *shlex.split(line)[2:]),
        )


def _filled(saved: str) -> set[tuple[str, str]]:
    """Tables and names of the chains that have a rule."""
    table, found = "", set()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            found.add((table, line.split()[1]))
    return found


def _iptables_kind(rule: str) -> str:
    rule = _CHAIN.sub(r"KUBE-\1", _COMMENT.sub("", rule))
    rule = _PROTOCOL.sub("", _IPTABLES_VALUES.sub(r"\1", rule))
    for address in (" 127.0.0.0/8", " ::1/128"):
        rule = rule.replace(address, " LOOPBACK")
    rule = _INTERFACE.sub("-i X", _MARK.sub("M", rule))
    return " ".join(_IPV6.sub("A", _IPV4.sub("A", rule)).split())


_OBJECT = re.compile(r"^\t(set|map|chain) (\S+) \{")
_HANDLE = re.compile(r"^\t\t(.*) # handle (\d+)$")
_NAME = re.compile(r"\b([a-z]+)-[A-Z2-7]{8}-\S+")
_IIFNAME = re.compile(r"(iifname(?: !=)?) \"[^\"]*\"")
_LEADS = re.compile(r"(?:jump|goto) ([^\s,}]+)")
_PAIRS = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"\b\d+\b")


@dataclass
class _Table:
    """What nft lists: rules with their handles by chain, elements by set or map."""

    chains: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)
    dynamic: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    hooks: set[str] = field(default_factory=set)

    @classmethod
    def parsed(cls, text: str) -> _Table:
        table, name = cls(), ""
        for line in re.sub(r",\n\t+", ", ", text).splitlines():
            words = line.strip()
            if found := _OBJECT.match(line):
                kind, name = found.groups()
                table.kinds[name] = kind
                (table.chains if kind == "chain" else table.sets)[name] = []
            elif name in table.chains and words.startswith("type "):
                table.hooks.add(name)
            elif name in table.chains and (rule := _HANDLE.match(line)):
                table.chains[name].append((rule[1], rule[2]))
            elif name in table.sets and words.startswith("flags dynamic"):
                table.dynamic.add(name)
            elif name in table.sets and words.startswith("elements = {"):
                table.sets[name] = words.removeprefix("elements = {").rstrip("} ").split(", ")
        return table

    def reached(self) -> set[str]:
        """Chains that a packet can get into: from hooks on, by rules that are not idle and by verdicts of maps."""
        leads = {
            chain: {
                target
                for rule, _ in rules
                if not self.idle(rule)
                for target in (*_LEADS.findall(rule), *self._verdicts(rule))
            }
            for chain, rules in self.chains.items()
        }
        found, waiting = set[str](), set(self.hooks)
        while waiting:
            chain = waiting.pop()
            found.add(chain)
            waiting |= leads.get(chain, set()) - found
        return found

    def _verdicts(self, rule: str) -> list[str]:
        looked = re.search(r"vmap @(\S+)", rule)
        elements = self.sets.get(looked[1], []) if looked else []
        return [target for element in elements for target in _LEADS.findall(element)]

    def idle(self, rule: str) -> bool:
        """Whether a rule can match nothing just now: it looks into an empty set, or leads to such rules only."""
        if (
            (found := re.search(r"@(\S+)", rule))
            and found[1] not in self.dynamic
            and not self.sets.get(found[1])
        ):
            return True
        if found := re.search(r"(?:jump|goto) (\S+)", rule):
            return all(self.idle(inner) for inner, _ in self.chains.get(found[1], [("", "")]))
        return False


def _nftables(ns: Namespace, family: str) -> Iterator[Mutant]:
    table = _Table.parsed(run(["nft", "-a", "list", "table", family, "kube-proxy"], ns=ns).stdout.decode())
    reached = table.reached()
    for chain, rules in table.chains.items():
        for number, (rule, handle) in enumerate(rules) if chain in reached else ():
            if not table.idle(rule):
                where = (family, "kube-proxy", chain)
                last = number == len(rules) - 1
                verb = ("add", "rule", *where) if last else ("insert", "rule", *where, "index", str(number))
                yield Mutant(
                    f"chain {_nft_kind(chain)}: {_nft_kind(rule)}",
                    f"{family} {chain}: {rule}",
                    6 if family == "ip6" else 4,
                    ("nft", "delete", "rule", *where, "handle", handle),
                    ("nft", *verb, rule),
                )
    for name, elements in table.sets.items():
        for element in elements if name not in table.dynamic else ():
            key = re.split(r" : | comment | timeout | expires ", element.strip())[0]
            where = ("element", family, "kube-proxy", name)
            yield Mutant(
                f"{table.kinds[name]} {_nft_kind(name)}",
                f"{family} {name} {{ {element.strip()} }}",
                6 if family == "ip6" else 4,
                ("nft", "delete", *where, "{", key, "}"),
                ("nft", "add", *where, "{", element.strip(), "}"),
            )


def _nft_kind(text: str) -> str:
    text = _NAME.sub(r"\1", text)
    text = _IPV6.sub("A", _IPV4.sub("A", _PAIRS.sub("{}", text)))
    text = text.replace("ip6 ", "ip ").replace("icmpv6", "icmp")
    text = _MARK.sub("M", _IIFNAME.sub(r"\1 X", text))
    return _NUMBER.sub("N", text)


def _ipset(ns: Namespace) -> Iterator[Mutant]:
    for line in _text(ns, "ipset", "save").splitlines():
        words = line.split()
        if words[:1] == ["add"] and words[1].startswith("KUBE-"):
            name, entry = words[1], words[2]
            kind = f"ipset {name.replace('KUBE-6-', 'KUBE-')}"
            version = 6 if name.startswith("KUBE-6-") else 4
            remove, put_back = ("ipset", "del", name, entry), ("ipset", "add", name, entry)
            yield Mutant(kind, f"{name} {entry}", version, remove, put_back)


def _ipvs(ns: Namespace) -> Iterator[Mutant]:
    for line in _text(ns, "ipvsadm", "-S", "-n").splitlines():
        words = line.split()
        remove = {"-A": "-D", "-a": "-d"}[words[0]]
        kept = 5 if words[0] == "-a" else 3
        kind = "real server" if words[0] == "-a" else "virtual server"
        persistent = " persistent" if "-p" in words else ""
        version = 6 if words[2].startswith("[") else 4
        # A virtual server takes its real servers with it.
        put_back = ("ipvsadm", *words) if words[0] == "-a" else ()
        yield Mutant(kind + persistent, line, version, ("ipvsadm", remove, *words[1:kept]), put_back)


def _addresses(ns: Namespace) -> Iterator[Mutant]:
    for line in _text(ns, "ip", "-o", "address", "show", "dev", "kube-ipvs0").splitlines():
        address = line.split()[3]
        if address.startswith("fe80:"):
            continue
        arguments = (address, "dev", "kube-ipvs0")
        yield Mutant(
            "address of kube-ipvs0",
            address,
            6 if ":" in address else 4,
            ("ip", "address", "del", *arguments),
            ("ip", "address", "add", *arguments),
        )


def take(command: Sequence[str], ns: Namespace, lock_file: Path) -> None:
    """Run one of a mutant's commands. `lock_file`: the one that iptables of this node take. Raises CommandFailed."""
    run(command, ns=ns, check=True, env={"XTABLES_LOCKFILE": str(lock_file)})


def forget_clients(variety: Variety, ns: Namespace) -> bool:
    """Clear the memory that session affinity has of clients. False where only writing everything anew does."""
    match variety.mode:
        case ProxyMode.NFTABLES:
            flushes = []
            for family in ("ip", "ip6"):
                listed = run(["nft", "-t", "list", "table", family, "kube-proxy"], ns=ns).stdout.decode()
                flushes += [
                    f"flush set {family} kube-proxy {name}" for name in sorted(_Table.parsed(listed).dynamic)
                ]
            if flushes:
                run(["nft", "-f", "-"], ns=ns, input="\n".join(flushes).encode(), check=True)
            return True
        case ProxyMode.IPTABLES:
            clear = 'for list in /proc/net/xt_recent/*; do [ ! -e "$list" ] || echo / > "$list"; done'
            run(["sh", "-c", clear], ns=ns, check=True)
            return True
        case ProxyMode.USERSPACE:
            return True
    return False
