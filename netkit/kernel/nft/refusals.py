"""What the kernel refused, in words: from the message it sends back with the error. Pure."""

from __future__ import annotations

import errno
from typing import Final

from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.nft import wire
from netkit.kernel.nft.wire import Message, text_of

_MODULES: Final = {
    "nat": "nft_nat",
    "masq": "nft_masq",
    "fib": "nft_fib_ipv4 or nft_fib_ipv6",
    "numgen": "nft_numgen",
    "reject": "nft_reject_ipv4 or nft_reject_ipv6",
    "ct": "nft_ct",
}
_VERBS: Final = {
    Message.NEWTABLE: "add table",
    Message.DELTABLE: "delete table",
    Message.NEWCHAIN: "add chain",
    Message.DELCHAIN: "delete chain",
    Message.NEWRULE: "add rule",
    Message.DELRULE: "flush chain",
    Message.NEWSET: "add set",
    Message.DELSET: "delete set",
    Message.NEWSETELEM: "add element",
    Message.DELSETELEM: "delete element",
}
_NAMES: Final = {
    Message.NEWCHAIN: wire.Chain.NAME,
    Message.DELCHAIN: wire.Chain.NAME,
    Message.NEWRULE: wire.Rule.CHAIN,
    Message.DELRULE: wire.Rule.CHAIN,
    Message.NEWSET: wire.Set.NAME,
    Message.DELSET: wire.Set.NAME,
    Message.NEWSETELEM: wire.Elements.SET,
    Message.DELSETELEM: wire.Elements.SET,
}


def refusal(code: int, echoed: bytes, namespace: str) -> KernelError:
    """The error for a refused message, which the kernel has sent back as `echoed`."""
    if len(echoed) < wire.HEADER_BYTES:
        return KernelError("nft transaction", namespace, code)
    length, kind = wire.HEADER.unpack_from(echoed)[:2]
    operation = describe(echoed[: max(length, wire.HEADER_BYTES)])
    module = _missing_module(code, kind, echoed[wire.HEADER_BYTES : length])
    if module:
        hint = f"load the kernel module {module}, or use a kernel that has it"
        return Unsupported(operation, namespace, code, f"this kernel lacks {module}", hint)
    hint = "root, or a user namespace, is needed" if code in (errno.EPERM, errno.EACCES) else ""
    return KernelError(operation, namespace, code, hint=hint)


def describe(message: bytes) -> str:
    """A message as the beginning of the nft command that means the same."""
    kind, family = wire.HEADER.unpack_from(message)[1] & 0xFF, message[16]
    if message[5] != wire.NFNL_SUBSYS_NFTABLES:
        return "nft transaction"
    found = wire.table_of(message, wire.HEADER_BYTES)
    verb = _VERBS.get(Message(kind), "change")
    if kind == Message.DELRULE and wire.Rule.HANDLE in found:
        verb = "delete rule"
    elif kind == Message.NEWRULE and not wire.HEADER.unpack_from(message)[2] & wire.NLM_F_APPEND:
        verb = "insert rule"
    words = ["nft", verb, "ip6" if family == wire.NFPROTO_IPV6 else "ip"]
    words.append(text_of(found.get(1, b"")))
    name = _NAMES.get(Message(kind))
    if name is not None:
        words.append(text_of(found.get(name, b"")))
    return " ".join(words)


def _missing_module(code: int, kind: int, body: bytes) -> str:
    """The kernel module whose absence explains the refusal, if one does."""
    if code in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
        return "nf_tables"
    if code != errno.ENOENT:
        return ""
    found = wire.table_of(body)
    if kind & 0xFF == Message.NEWCHAIN and text_of(found.get(wire.Chain.TYPE, b"")) == "nat":
        return "nft_chain_nat"
    if kind & 0xFF == Message.NEWRULE and wire.Rule.EXPRESSIONS in found:
        for _, item in wire.attributes(found[wire.Rule.EXPRESSIONS]):
            name = text_of(wire.table_of(item).get(1, b""))
            if name in _MODULES:
                return _MODULES[name]
    return ""
