"""The mutation check: a rule of each kind is taken away, and at least one row must notice.

`python -m rows.mutation --mode nftables` prints every kind and the row that noticed, `--all` takes away every single
rule. What no row notices is either listed in `UNNOTICED`, with a reason, or shows that a row is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netkit.kernel import netns_directory
from netkit.kernel.errors import CommandFailed
from netkit.proxy.addresses import Family
from rows.format import Row, Table
from rows.mutants import Mutant, mutants, take
from rows.reader import read_table
from rows.runner import Batch, Proxy, Runner, batches
from rows.suite import TABLE
from rows.traffic import Traffic
from rows.varieties import Variety, chosen
from rows.world import World

_TRIES, _TRIES_HERE = 12, 2
"""How many rules of a kind are taken away before it counts as unnoticed, in all batches and in one. Where none of them
names anything of a row, one in a batch is as good as another.
"""
_PATIENCE = 0.5
_WORD = re.compile(r"[^0-9A-Za-z.:/-]+|:(?=\d+\b)")
_CHUNK = 24

UNNOTICED: Mapping[str, str] = {
    r"nfacct-name localhost_nps_accepted_pkts": "counts, and does what the next rule does",
    r"^nat KUBE-FW$": "a comment",
    r"^filter OUTPUT -j KUBE-FIREWALL$": "what it drops on its way out would be dropped on its way in",
    r"draw-(cluster|local)-N-": "one of twenty draws, of which any other does",
    r"--ctstate INVALID": "drops packets outside the window of a connection, which no row sends",
    r"^nat KUBE-POSTROUTING -j MARK --set-xmark|^chain masquerading: meta mark set": (
        "clears the mark for packets that are wrapped into a tunnel afterwards; this network has none"
    ),
}
"""Kinds, as regular expressions, that no row can notice, and why."""


@dataclass
class Kind:
    """What is known of one kind: the row that noticed, or the rules that nobody missed."""

    tries: int = 0
    noticed_by: str = ""
    unnoticed: list[str] = field(default_factory=list)


class Check:
    """One mode's check."""

    def __init__(self, runner: Runner, variety: Variety, *, each: bool = False) -> None:
        self._runner = runner
        self._variety = variety
        self._each = each
        self.kinds: dict[str, Kind] = {}

    async def run(self, told: Callable[[str], None] = lambda text: None) -> None:
        """Go through all batches of the table."""
        clusters = self._runner.table.clusters
        # On closed nodes rules are missed that elsewhere only let through what would pass anyhow. Then the batches in
        # which most is called.
        found = batches(self._runner.table.rows)
        found.sort(key=lambda batch: (not clusters[batch.cluster].closed, -len(batch.rows)))
        for batch in found:
            rows = [row for row in batch.rows if not row.expected[self._variety.mode.value].skip]
            if not rows:
                continue
            async with self._runner.proxy(self._variety, batch) as proxy:
                await self._batch(batch, rows, proxy, told)

    async def _batch(
        self, batch: Batch, rows: Sequence[Row], proxy: Proxy, told: Callable[[str], None]
    ) -> None:
        space = self._runner.world.machines[batch.node]
        tried: Counter[str] = Counter()
        seen: set[str] = set()
        while True:
            # The kernel gives new handles to what is written anew, so it is read anew as well.
            mutant = self._next(mutants(self._variety, space), rows, tried, seen)
            if mutant is None:
                return
            tried[mutant.kind] += 1
            seen.add(mutant.what)
            kind = self.kinds[mutant.kind]
            kind.tries += 1
            started = time.monotonic()
            try:
                take(mutant.remove, space)
            except CommandFailed as error:
                # What others of ours lead to cannot go; then it is not a way to break anything.
                kind.unnoticed.append(f"{mutant.what} (cannot be taken away: {error})")
                continue
            noticed = await self._notice(mutant, rows)
            await self._restore(mutant, proxy, batch)
            if noticed:
                kind.noticed_by = noticed
            else:
                kind.unnoticed.append(f"{batch.cluster}: {mutant.what}")
            told(f"{time.monotonic() - started:5.2f} s  {mutant.kind}\n         {noticed or 'NOBODY'}")

    def _next(
        self, found: Sequence[Mutant], rows: Sequence[Row], tried: Counter[str], seen: set[str]
    ) -> Mutant | None:
        """The next rule to take away here: one of a kind that nobody noticed yet, that concerns most rows."""
        candidates = []
        versions = {row.family.version for row in rows}
        for mutant in found:
            kind = self.kinds.setdefault(mutant.kind, Kind())
            if mutant.what in seen or mutant.version not in versions:
                continue
            settled = kind.noticed_by or kind.tries >= _TRIES or tried[mutant.kind] >= _TRIES_HERE
            if self._each or not (settled or excuse(mutant.kind)):
                candidates.append(mutant)
        if not candidates:
            return None
        best = max(candidates, key=lambda mutant: self._interest(mutant, rows))
        if not self._each and self._interest(best, rows)[0] == 0 and tried[best.kind]:
            tried[best.kind] = _TRIES_HERE
            return self._next(found, rows, tried, seen)
        return best

    def _interest(self, mutant: Mutant, rows: Sequence[Row]) -> tuple[int, int]:
        scores = [self._score(mutant, row) for row in rows]
        return max(scores), sum(scores)

    def _score(self, mutant: Mutant, row: Row) -> int:
        """How many of a row's Service, targets and client a rule names."""
        words = set(_WORD.split(mutant.what)) | {word.partition("/")[0] for word in _WORD.split(mutant.what)}
        service = "/".join(row.service) if row.service else "-"
        named = bool(re.search(rf"{re.escape(service)}(?![\w-])", mutant.what))
        called = any(str(target.address) in words for target in row.targets)
        pods = self._runner.table.plan.pods
        clients = [
            str(address) for pod in pods if pod.name == row.origin.machine for address in pod.addresses
        ]
        return named + called + any(client in words for client in clients)

    async def _notice(self, mutant: Mutant, rows: Sequence[Row]) -> str:
        """The first row that fails, those first that have to do with the rule; "" if none does."""
        ordered = sorted(rows, key=lambda row: -self._score(mutant, row))
        for start in range(0, len(ordered), _CHUNK):
            chunk = ordered[start : start + _CHUNK]
            for result in await self._runner.measure(self._variety, chunk, patience=_PATIENCE, looks=1):
                if result.failed and result.judgement is not None:
                    return f"{result.row.title}: {result.judgement.seen}"
        return ""

    async def _restore(self, mutant: Mutant, proxy: Proxy, batch: Batch) -> None:
        """As it was, also without the memory of clients that came in the meantime."""
        services = self._runner.table.clusters[batch.cluster].of_kind("Service")
        remembers = any(service["spec"].get("sessionAffinity") == "ClientIP" for service in services)
        if mutant.put_back and not remembers:
            take(mutant.put_back, self._runner.world.machines[batch.node])
            return
        await proxy.rewrite(Family.IPV4 if mutant.version == 4 else Family.IPV6)

    def missed(self) -> dict[str, list[str]]:
        """Kinds that no row noticed and no reason excuses, with the rules that were taken away."""
        return {
            name: kind.unnoticed
            for name, kind in self.kinds.items()
            if kind.tries and not kind.noticed_by and not excuse(name)
        }


def excuse(kind: str) -> str:
    """Why nobody has to notice a kind; "" if somebody must."""
    return next((why for pattern, why in UNNOTICED.items() if re.search(pattern, kind)), "")


async def check(
    table: Table, world: World, variety: Variety, told: Callable[[str], None], *, each: bool
) -> Check:
    async with Traffic(world) as traffic:
        made = Check(Runner(table, world, traffic), variety, each=each)
        await made.run(told)
        return made


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m rows.mutation", description=__doc__)
    parser.add_argument("--mode", default="iptables-legacy")
    parser.add_argument("--all", action="store_true", help="every rule, not one of each kind")
    options = parser.parse_args(arguments)
    table = read_table(TABLE)
    status = 0
    with tempfile.TemporaryDirectory() as directory, World.built(table.plan, Path(directory)) as world:
        for variety in chosen(options.mode):
            if missing := variety.missing(world.machines["node1"], world.directory):
                print(f"{variety.name}: not here: {missing}")
                continue
            started = time.monotonic()
            found = asyncio.run(check(table, world, variety, print, each=options.all))
            missed = found.missed()
            for kind, rules in missed.items():
                print(f"NOBODY NOTICED {kind}")
                for rule in rules:
                    print(f"    {rule}")
            print(
                f"{variety.name}: {len(found.kinds)} kinds, {len(missed)} missed, {time.monotonic() - started:.0f} s"
            )
            status |= bool(missed)
    netns_directory.restore()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
