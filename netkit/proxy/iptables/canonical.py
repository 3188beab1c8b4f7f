"""One form for every rule of iptables: the one in which iptables-save prints it.

The same rule can be written in many ways: addresses with and without prefix length, options in any order, marks by
five different options, defaults left out. Who compares rules brings them to this form first. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from netkit.proxy.addresses import Family, parse_network

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED = re.compile(r"\\(.)")

_LONG = {
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--protocol": "-p",
    "--proto": "-p",
    "--match": "-m",
    "--jump": "-j",
    "--goto": "-g",
    "--destination-port": "--dport",
    "--source-port": "--sport",
}
_HEAD = ("-s", "-d", "-i", "-o", "-p")
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "132": "sctp"}
_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")
_RECENT_ORDER = ("--set", "--rcheck", "--update", "--remove", "--seconds", "--reap", "--hitcount", "--rttl")
_WHOLE_MARK = 0xFFFFFFFF

NFACCT = "nfacct --nfacct-name  "
"""iptables-save prints two spaces there."""


@dataclass(slots=True)
class _Option:
    """An option with its values; `negated` if an exclamation mark stands before it."""

    name: str
    values: list[str] = field(default_factory=list)
    negated: bool = False

    def __str__(self) -> str:
        return " ".join([*(["!"] if self.negated else []), self.name, *self.values])


@dataclass(slots=True)
class _Part:
    """A match or a target, and its options."""

    name: str
    options: list[_Option] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join([self.name, *map(str, self.options)])


def canonical(rule: str, family: Family) -> str:
    """`rule` (without `-A CHAIN`) as iptables-save prints it. Extensions that are not known stay as they are."""
    head: dict[str, _Option] = {}
    parts: list[_Part] = []
    target: _Part | None = None
    way = "-j"
    for option in _options(rule):
        if option.name in _HEAD:
            head[option.name] = option
        elif option.name == "-m":
            parts.append(_Part(option.values[0] if option.values else ""))
        elif option.name in ("-j", "-g"):
            way, target = option.name, _Part(" ".join(option.values))
        elif target is not None:
            target.options.append(option)
        else:
            if not parts:  # the protocol's options, without its match being named
                parts.append(_Part(_protocol(head["-p"].values[0]) if "-p" in head else ""))
            parts[-1].options.append(option)
    words = [text for name in _HEAD if name in head and (text := _head_option(head[name]))]
    words += [f"-m {_match(part, family)}" for part in parts]
    if target is not None:
        words.append(f"{way} {_target(target, family)}")
    return " ".join(words)


def _options(rule: str) -> Iterator[_Option]:
    option = _Option("")
    negated = False
    for quoted, word in _WORD.findall(rule):
        if word == "!":
            negated = True
        elif word.startswith("-") and len(word) > 1:
            if option.name:
                yield option
            option, negated = _Option(_LONG.get(word, word), negated=negated), False
        else:
            option.values.append(word or _ESCAPED.sub(r"\1", quoted))
    if option.name:
        yield option


def _head_option(option: _Option) -> str:
    """An address, interface or protocol; empty if it says nothing."""
    value = option.values[0] if option.values else ""
    if option.name in ("-s", "-d"):
        network = parse_network(value if "/" in value else f"{value}/{128 if ':' in value else 32}")
        if network.prefixlen == 0 and not option.negated:
            return ""
        value = str(network)
    elif option.name == "-p":
        value = _protocol(value)
        if value in ("all", "0") and not option.negated:
            return ""
    return str(_Option(option.name, [value], option.negated))


def _protocol(text: str) -> str:
    return _PROTOCOLS.get(text, text.lower())


def _match(part: _Part, family: Family) -> str:
    match part.name:
        case "comment":
            return (
                f"comment --comment {_quoted(' '.join(part.options[0].values))}"
                if part.options
                else part.name
            )
        case "mark" | "connmark":
            _map_values(part, "--mark", _mark)
        case "statistic":
            _map_values(part, "--probability", _probability)
        case "conntrack":
            _map_values(part, "--ctstate", _states)
        case "recent":
            return str(_recent(part, family))
        case "nfacct":
            return NFACCT + " ".join(value for option in part.options for value in option.values)
    return str(part)


def _map_values(part: _Part, name: str, change: object) -> None:
    assert callable(change)
    for option in part.options:
        if option.name == name:
            option.values = [change(value) for value in option.values]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _mark(text: str) -> str:
    value, _, mask = text.partition("/")
    number, bits = int(value, 0), int(mask, 0) if mask else _WHOLE_MARK
    return hex(number) if bits == _WHOLE_MARK else f"{number:#x}/{bits:#x}"


def _probability(text: str) -> str:
    """The kernel keeps multiples of 2^-31."""
    return f"{round(float(text) * 2**31) / 2**31:.11f}"


def _states(text: str) -> str:
    return ",".join(sorted(text.upper().split(","), key=lambda state: (*_STATES, state).index(state)))


def _recent(part: _Part, family: Family) -> _Part:
    """Its defaults are printed: the whole address, that of the source."""
    found = {option.name: option for option in part.options}
    whole = "ffff:" * 7 + "ffff" if family is Family.IPV6 else "255.255.255.255"
    options = [found[name] for name in _RECENT_ORDER if name in found]
    options.append(found.get("--name", _Option("--name", ["DEFAULT"])))
    options.append(found.get("--mask", _Option("--mask", [whole])))
    options.append(found.get("--rdest", _Option("--rsource")))
    return _Part(part.name, options)


def _target(part: _Part, family: Family) -> str:
    if part.name == "MARK" and part.options:
        part.options = [_set_xmark(part.options[0])]
    elif part.name == "REJECT" and not part.options:
        refusal = "icmp6-port-unreachable" if family is Family.IPV6 else "icmp-port-unreachable"
        part.options = [_Option("--reject-with", [refusal])]
    return str(part)


def _set_xmark(option: _Option) -> _Option:
    """All ways to change a mark are one to the kernel: clear the bits of a mask, then turn those of a value."""
    text, _, mask_text = option.values[0].partition("/")
    value, mask = int(text, 0), int(mask_text, 0) if mask_text else _WHOLE_MARK
    match option.name:
        case "--or-mark":
            mask = value
        case "--xor-mark":
            mask = 0
        case "--and-mark":
            value, mask = 0, value ^ _WHOLE_MARK
        case "--set-mark":
            mask |= value
    return _Option("--set-xmark", [f"{value:#x}/{mask:#x}"])
