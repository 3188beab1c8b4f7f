"""The mutation check: a rule of each kind is taken away, and at least one row must notice.

`python -m rows.mutation --mode nftables` prints every kind and the row that noticed, `--all` takes away every single
rule. What no row notices is either listed in `UNNOTICED`, with a reason, or shows that a row is missing. `--excused`
takes away only what is listed there: a reason is wrong when a row notices, and idle when nothing is of its kind.
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
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Family
from rows.format import Row, Table
from rows.mutants import Mutant, forget_clients, mutants, take
from rows.reader import read_table
from rows.record import Noticed, Record, recorded, write
from rows.runner import Batch, Proxy, Runner, batches
from rows.suite import TABLE, Suite
from rows.traffic import Traffic
from rows.varieties import Variety, chosen
from rows.world import World

_TRIES, _TRIES_HERE = 12, 2
"""How many rules of a kind are taken away before it counts as unnoticed, in all batches and in one. Where none of them
names anything of a row, one in a batch is as good as another.
"""
_CLIENTS_LIVES = 8
"""How often clients forget their endpoint and call anew before a rule of session affinity counts as unnoticed: it is
missed only if a client gets the endpoint it is about, and then by half of the clients.
"""
_AFFINITY = re.compile(r"affinity|-m recent|KUBE-SEP|endpoint")
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

_SET = r"^nat KUBE-SERVICES -m set --match-set KUBE-(6-)?"
UNNOTICED_IN: Mapping[str, Mapping[str, str]] = {
    "ipvs": {
        rf"{_SET}(CLUSTER-IP|LOAD-BALANCER) dst,dst -j ACCEPT$": (
            "the last rules: they keep packets from rules of others behind ours, and this network has none (a test in "
            "tests/ipvs/test_data_path.py has)"
        ),
        rf"{_SET}EXTERNAL-IP(-LOCAL)? dst,dst -m physdev ! --physdev-is-in .*! --src-type LOCAL -j ACCEPT$": (
            "external addresses are the node's own, so the next rule accepts all that this one does"
        ),
        rf"{_SET}EXTERNAL-IP dst,dst -m addrtype --dst-type LOCAL -j ACCEPT$": (
            "what follows only sets the mark, which the rule before has set"
        ),
        r"^nat KUBE-SERVICES -s LOOPBACK -j RETURN$": (
            "IPVS takes nothing from loopback to another machine, and here all endpoints are other machines"
        ),
        r"^filter FORWARD -j KUBE-PROXY-FIREWALL$": (
            "load balancers' addresses are the node's own: what is called there comes by INPUT"
        ),
        r"^filter KUBE-FORWARD -m mark --mark M/M -j ACCEPT$": (
            "what is marked is for addresses of the node: IPVS sends it on by OUTPUT, never by FORWARD"
        ),
        r"^filter KUBE-SOURCE-RANGES-FIREWALL .*KUBE-LOAD-BALANCER-SOURCE-IP dst,dst,src -j RETURN$"
        r"|^ipset KUBE-LOAD-BALANCER-SOURCE-IP$": (
            "only the node itself has this source, and IPVS takes its packets in OUTPUT, before INPUT"
        ),
    }
}
"""The same for single modes."""


@dataclass
class Kind:
    """What is known of one kind: who noticed, or the rules that nobody missed. `recalled`: its record was tried."""

    tries: int = 0
    noticed: Noticed | None = None
    unnoticed: list[str] = field(default_factory=list)
    recalled: bool = False


class Check:
    """One mode's check. `record`: rows to try first. `each`: every rule, not one of each kind. `tries`: how many rules
    of a kind in one batch. `excused`: only kinds that nobody has to notice.
    """

    def __init__(
        self,
        runner: Runner,
        variety: Variety,
        record: Record | None = None,
        *,
        each: bool = False,
        tries: int = _TRIES_HERE,
        excused: bool = False,
    ) -> None:
        self._runner = runner
        self._variety = variety
        self._record = record or {}
        self._each = each
        self._tries = tries
        self._excused = excused
        self.kinds: dict[str, Kind] = {}

    async def run(self, told: Callable[[str], None] = lambda text: None) -> None:
        """Go through all batches of the table; once more if records did not hold."""
        await self._pass(told)
        if any(kind in self._record and not self._settled(kind) for kind in self.kinds):
            self._record = {}
            await self._pass(told)

    async def _pass(self, told: Callable[[str], None]) -> None:
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

    def _settled(self, kind: str) -> bool:
        known = self.kinds[kind]
        return (
            bool(known.noticed or self._passed_over(kind))
            or known.tries >= _TRIES // _TRIES_HERE * self._tries
        )

    def _passed_over(self, kind: str) -> bool:
        """Whether nobody is asked about this kind."""
        return bool(excuse(kind, self._variety.name)) is not self._excused

    async def _batch(
        self, batch: Batch, rows: Sequence[Row], proxy: Proxy, told: Callable[[str], None]
    ) -> None:
        space = self._runner.world.machines[batch.node]
        tried: Counter[str] = Counter()
        seen: set[str] = set()
        found: Sequence[Mutant] = ()
        while True:
            found = found or mutants(self._variety, space)
            mutant, asked = self._next(found, rows, tried, seen)
            if mutant is None:
                return
            tried[mutant.kind] += 1
            seen.add(mutant.what)
            kind = self.kinds[mutant.kind]
            kind.tries += 1
            started = time.monotonic()
            try:
                take(mutant.remove, space, self._runner.world.lock_file(batch.node))
            except CommandFailed as error:
                # What others of ours lead to cannot go; then it is not a way to break anything.
                kind.unnoticed.append(f"{mutant.what} (cannot be taken away: {error})")
                continue
            row, saw = await self._notice(mutant, asked)
            if row is None and self._remembers(batch) and _AFFINITY.search(mutant.kind):
                row, saw = await self._notice_in_time(mutant, rows, space)
            if not await self._restore(mutant, proxy, batch):
                found = ()
            if row is not None:
                kind.noticed = Noticed(mutant.what, row.title)
            else:
                kind.unnoticed.append(f"{batch.cluster}: {mutant.what}")
            noticed = f"{row.title}: {saw}" if row is not None else "NOBODY"
            told(f"{time.monotonic() - started:5.2f} s  {mutant.kind}\n         {noticed}")

    def _next(
        self, found: Sequence[Mutant], rows: Sequence[Row], tried: Counter[str], seen: set[str]
    ) -> tuple[Mutant | None, Sequence[Row]]:
        """The next rule to take away here, and the rows that may notice.

        First those that are on record, then one of a kind that nobody noticed yet, that concerns most rows.
        """
        candidates = []
        versions = {row.family.version for row in rows}
        titles = {row.title: row for row in rows}
        for mutant in found:
            kind = self.kinds.setdefault(mutant.kind, Kind())
            if record := self._record.get(mutant.kind):
                if record == Noticed(mutant.what, record.row) and record.row in titles and not kind.recalled:
                    kind.recalled = True
                    return mutant, [titles[record.row]]
                continue
            if mutant.what in seen or mutant.version not in versions:
                continue
            settled = self._settled(mutant.kind) or tried[mutant.kind] >= self._tries
            if not settled or (self._each and not self._excused):
                candidates.append(mutant)
        if not candidates:
            return None, ()
        best = max(candidates, key=lambda mutant: self._interest(mutant, rows))
        if not self._each and self._interest(best, rows)[0] == 0 and tried[best.kind]:
            tried[best.kind] = self._tries
            return self._next(found, rows, tried, seen)
        return best, rows

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

    async def _notice(self, mutant: Mutant, rows: Sequence[Row]) -> tuple[Row | None, str]:
        """The first row that fails, those first that have to do with the rule, and what it saw."""
        ordered = sorted(rows, key=lambda row: -self._score(mutant, row))
        for start in range(0, len(ordered), _CHUNK):
            chunk = ordered[start : start + _CHUNK]
            for result in await self._runner.measure(self._variety, chunk, patience=_PATIENCE, looks=1):
                if result.failed and result.judgement is not None:
                    return result.row, result.judgement.seen
        return None, ""

    async def _notice_in_time(
        self, mutant: Mutant, rows: Sequence[Row], space: Namespace
    ) -> tuple[Row | None, str]:
        """The same by the rows of the rule's Service, in several lives of their clients."""
        concerned = [row for row in rows if self._score(mutant, row)]
        for _ in range(_CLIENTS_LIVES if concerned else 0):
            if not forget_clients(self._variety, space):
                break
            row, saw = await self._notice(mutant, concerned)
            if row is not None:
                return row, saw
        return None, ""

    def _remembers(self, batch: Batch) -> bool:
        """Whether Services of the batch have session affinity."""
        services = self._runner.table.clusters[batch.cluster].of_kind("Service")
        return any(service["spec"].get("sessionAffinity") == "ClientIP" for service in services)

    async def _restore(self, mutant: Mutant, proxy: Proxy, batch: Batch) -> bool:
        """As it was, also without the memory of clients that came in the meantime. False: all was written anew."""
        space = self._runner.world.machines[batch.node]
        if mutant.put_back:
            try:
                take(mutant.put_back, space, self._runner.world.lock_file(batch.node))
            except CommandFailed:
                pass
            else:
                if not self._remembers(batch) or forget_clients(self._variety, space):
                    return True
        await proxy.rewrite(Family.IPV4 if mutant.version == 4 else Family.IPV6)
        return False

    def missed(self) -> dict[str, list[str]]:
        """Kinds that no row noticed and no reason excuses, with the rules that were taken away."""
        return {
            name: kind.unnoticed
            for name, kind in self.kinds.items()
            if kind.tries and not kind.noticed and not excuse(name, self._variety.name)
        }

    def wrongly_excused(self) -> dict[str, list[str]]:
        """Kinds that a row did notice, with the rule and the row."""
        return {
            name: [kind.noticed.rule, kind.noticed.row]
            for name, kind in self.kinds.items()
            if kind.noticed and excuse(name, self._variety.name)
        }

    def idle_excuses(self) -> list[str]:
        """Reasons of this mode that were asked for by no kind."""
        patterns = UNNOTICED_IN.get(self._variety.name, {})
        tried = [name for name, kind in self.kinds.items() if kind.tries]
        return [pattern for pattern in patterns if not any(re.search(pattern, name) for name in tried)]

    def noticed(self) -> Record:
        """What to record."""
        return {name: kind.noticed for name, kind in self.kinds.items() if kind.noticed}


def excuse(kind: str, variety: str) -> str:
    """Why nobody has to notice a kind in a variety; "" if somebody must."""
    reasons = {**UNNOTICED, **UNNOTICED_IN.get(variety, {})}
    return next((why for pattern, why in reasons.items() if re.search(pattern, kind)), "")


async def check(
    table: Table,
    world: World,
    variety: Variety,
    record: Record | None = None,
    told: Callable[[str], None] = lambda text: None,
    *,
    each: bool = False,
    tries: int = _TRIES_HERE,
    excused: bool = False,
) -> Check:
    """The check of one mode, done."""
    async with Traffic(world) as traffic:
        made = Check(Runner(table, world, traffic), variety, record, each=each, tries=tries, excused=excused)
        await made.run(told)
        return made


def report(missed: Mapping[str, Sequence[str]], fault: str = "NOBODY NOTICED") -> str:
    """Kinds that are at fault, with their rules."""
    return "\n".join(
        line
        for kind, rules in missed.items()
        for line in (f"{fault} {kind}", *(f"    {rule}" for rule in rules))
    )


async def every_kind_is_noticed(suite: Suite, variety: Variety) -> None:
    """The test of one mode: take away a rule of each kind that is in the kernel."""
    suite.require(variety)
    made = await check(suite.table, suite.world, variety, recorded(variety.name))
    assert made.kinds, "there are no rules"
    missed = made.missed()
    assert not missed, report(missed)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m rows.mutation", description=__doc__)
    parser.add_argument("--mode", default="iptables-legacy")
    parser.add_argument("--all", action="store_true", help="every rule, not one of each kind")
    parser.add_argument("--tries", type=int, default=_TRIES_HERE, help="rules of a kind, in each batch")
    parser.add_argument("--known", action="store_true", help="try first the rows on record, as the tests do")
    parser.add_argument("--excused", action="store_true", help="only what nobody has to notice")
    parser.add_argument("--record", action="store_true", help="write down in noticed.yaml who noticed")
    options = parser.parse_args(arguments)
    table = read_table(TABLE)
    status = 0
    with tempfile.TemporaryDirectory() as directory, World.built(table.plan, Path(directory)) as world:
        for variety in chosen(options.mode):
            if missing := variety.missing(world.machines["node1"], world.directory):
                print(f"{variety.name}: not here: {missing}")
                continue
            started = time.monotonic()
            record = recorded(variety.name) if options.known else None
            made = check(
                table, world, variety, record, print, each=options.all, tries=options.tries,
                excused=options.excused,
            )  # fmt: skip
            found = asyncio.run(made)
            missed = found.wrongly_excused() if options.excused else found.missed()
            if missed:
                print(report(missed, "IS NOTICED" if options.excused else "NOBODY NOTICED"))
            if options.excused:
                print(*(f"EXCUSES NOTHING {pattern}" for pattern in found.idle_excuses()), sep="\n")
            print(
                f"{variety.name}: {len(found.kinds)} kinds, {len(missed)} missed, {time.monotonic() - started:.0f} s"
            )
            if options.record:
                write(variety.name, found.noticed())
            status |= bool(missed)
    netns_directory.restore()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
