"""A table in memory for tests without root: it takes transactions as the kernel does, and refuses as it does."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from netkit.kernel.errors import KernelError
from netkit.kernel.nft import wire
from netkit.kernel.nft.driver import Witness
from netkit.kernel.nft.expressions import Code, Dynset, Lookup, Verdict, decode
from netkit.kernel.nft.objects import Contents
from netkit.kernel.nft.replay import Replay


class FakeNftTable:
    """See `driver.TableDriver`. `transactions` counts the commits and `sent` the bytes of each.

    `refuse` makes the next commit fail with that errno, or a later one: that after `refuse_after` good ones.
    """

    def __init__(self, family: int = wire.NFPROTO_IPV4, table: str = "kube-proxy") -> None:
        self.family = family
        self.table = table
        self.contents: Contents | None = None
        self.sent: list[int] = []
        self.refuse = 0
        self.refuse_after = 0
        self._disturbances: asyncio.Queue[str] = asyncio.Queue()

    @property
    def transactions(self) -> int:
        return len(self.sent)

    def commit(self, messages: Sequence[bytes]) -> None:
        """Apply all of it, or nothing."""
        if self.refuse and self.refuse_after:
            self.refuse_after -= 1
        elif self.refuse:
            code, self.refuse = self.refuse, 0
            raise KernelError("nft transaction", "fake", code)
        replay = Replay(self.contents.copy() if self.contents is not None else None)
        replay.apply(messages)
        if replay.contents is not None:
            check(replay.contents)
        self.contents = replay.contents
        self.sent.append(sum(map(len, messages)))

    def read(self, *, all_elements: bool = False) -> Contents | None:
        """A copy of what the kernel would be asked for."""
        if self.contents is None:
            return None
        found = self.contents.copy()
        if not all_elements:
            for name, spec in found.sets.items():
                if spec.signature:
                    found.elements[name] = []
        return found

    def has(self, chains: Iterable[str]) -> bool:
        return self.contents is not None and all(chain in self.contents.chains for chain in chains)

    def handles(self, chain: str) -> list[int]:
        """Places stand for numbers: they hold within one transaction."""
        rules = self.contents.rules.get(chain, ()) if self.contents is not None else ()
        return list(range(1, len(rules) + 1))

    def watch(self) -> None:
        pass

    @contextmanager
    def quiet(self) -> Iterator[Witness]:
        yield Witness()

    async def disturbance(self) -> str:
        return await self._disturbances.get()

    def disturb(self, what: str) -> None:
        """Have `disturbance` return."""
        self._disturbances.put_nowait(what)


def check(contents: Contents) -> None:
    """Refuse rules and elements that lead to nothing, as the kernel does: EBUSY for what was deleted too early."""
    for name, rules in contents.rules.items():
        for rule in rules:
            for item in decode(rule.expressions):
                if isinstance(item, Lookup | Dynset) and item.set_name not in contents.sets:
                    raise KernelError(f"rule of {name} uses set {item.set_name}", errno=errno.EBUSY)
                _check_verdict(contents, item, name)
    for name, elements in contents.elements.items():
        for element in elements:
            _check_verdict(contents, element.data, name)


def _check_verdict(contents: Contents, item: object, where: str) -> None:
    if (
        isinstance(item, Verdict)
        and item.code in (Code.JUMP, Code.GOTO)
        and item.chain not in contents.chains
    ):
        raise KernelError(f"{where} leads to chain {item.chain}", errno=errno.EBUSY)
