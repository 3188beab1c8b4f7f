"""`tests/run --rows FILE.yaml [--mode MODE]`: run the rows of a file and print how each one went."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from netkit.kernel import netns_directory
from rows.errors import TableError
from rows.format import Table
from rows.reader import read_table
from rows.report import failure, line
from rows.runner import Result, Runner
from rows.traffic import Traffic
from rows.varieties import Variety, chosen
from rows.world import World


def main(arguments: list[str]) -> int:
    """0: all rows hold; 1: some do not; 2: the file or the call is wrong."""
    parser = argparse.ArgumentParser("tests/run --rows", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--mode", default="", help="iptables, iptables-nft, nftables, ... (default: all)")
    parser.add_argument("--only", default="", help="only rows whose `cluster: name` contains this")
    parser.add_argument("--quiet", action="store_true", help="print only what failed, and the sums")
    options = parser.parse_args(arguments)
    try:
        table = read_table(options.file)
        varieties = chosen(options.mode)
    except (TableError, ValueError) as error:
        print(f"tests/run: {error}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("tests/run: rows make network namespaces and need root: run it with sudo", file=sys.stderr)
        return 2
    try:
        return asyncio.run(run(table, varieties, options))
    finally:
        netns_directory.restore()


async def run(table: Table, varieties: list[Variety], options: argparse.Namespace) -> int:
    rows = [row for row in table.rows if options.only in row.title]
    failures = runs = 0
    with tempfile.TemporaryDirectory() as directory, World.built(table.plan, Path(directory)) as world:
        async with Traffic(world) as traffic:
            runner = Runner(table, world, traffic)
            for variety in varieties:
                missing = variety.missing(world.machines["node1"], world.directory)
                if missing:
                    print(f"{variety.name}: not here: {missing}")
                    continue
                started = time.monotonic()
                results = await runner.run(variety, rows)
                for result in results:
                    show(result, quiet=options.quiet)
                failed = sum(result.failed for result in results)
                skipped = sum(result.judgement is None for result in results)
                print(
                    f"{variety.name}: {len(results) - failed - skipped} rows hold, {failed} fail, {skipped} skipped,"
                    f" {time.monotonic() - started:.1f} s"
                )
                failures += failed
                runs += 1
    if not runs:
        print("tests/run: none of these modes can run on this kernel", file=sys.stderr)
        return 2
    return 1 if failures else 0


def show(result: Result, *, quiet: bool) -> None:
    if quiet and not result.failed:
        return
    print(line(result))
    if result.failed:
        for text in failure(result):
            print(f"       {text}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
