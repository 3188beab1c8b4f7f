"""`netkit api`: what the API server is asked, and by whom."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from netkit.cluster.api_requests import ApiCall, Filter

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the API server at work.",
)


@app.callback()
def group() -> None:
    """Look at the API server at work."""


@app.command()
def requests(
    profile: ProfileOption = "lab",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print each request as it comes, until Ctrl-C.")
    ] = False,
    user: Annotated[
        str, typer.Option("--user", "-u", help="Only of users or clients whose name holds this.")
    ] = "",
    resource: Annotated[
        str, typer.Option("--resource", "-r", help="Only for resources (or paths) whose name holds this.")
    ] = "",
    verb: Annotated[str, typer.Option("--verb", help="Only this verb: get, list, watch, create, ...")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only of this namespace.")] = "",
    output: OutputOption = Format.TEXT,
) -> None:
    """Show who asks the API server what: the latest requests in groups, or each one live with -w."""
    import asyncio

    from netkit.cluster.api_requests import Filter

    wanted = Filter(user, resource, verb, namespace)
    if watch:
        asyncio.run(_follow(profile, wanted, output))
    else:
        asyncio.run(_show(profile, wanted, output))


async def _show(profile: str, wanted: Filter, output: Format) -> None:
    from netkit.cluster.access import admin_client
    from netkit.cluster.api_requests import grouped, read
    from netkit.cluster.profile import Profile

    client = admin_client(Profile(profile), Profile(profile).facts().server)
    try:
        latest, still_open = await read(client, wanted)
    finally:
        await client.close()
    groups = grouped(latest, still_open)
    if output is Format.JSON:
        print_json({"groups": groups, "latest": latest, "open": still_open})
        return
    headers = ["USER", "CLIENT", "VERB", "WHAT", "COUNT", "OPEN", "FAILED", "PER SECOND", "MEDIAN"]
    rows = [
        (
            group.user, group.agent or "-", group.verb, group.what, group.count, group.open or "", group.failed or "",
            f"{group.per_second:.1f}", _duration(group.median_seconds),
        )
        for group in groups
    ]  # fmt: skip
    print(table(headers, rows))
    print()
    print(f"{len(latest)} requests, {len(still_open)} open. Each one as it comes: netkit api requests -w")


async def _follow(profile: str, wanted: Filter, output: Format) -> None:
    from contextlib import aclosing

    from netkit.cluster.access import admin_client
    from netkit.cluster.api_requests import follow
    from netkit.cluster.profile import Profile

    client = admin_client(Profile(profile), Profile(profile).facts().server)
    try:
        async with aclosing(follow(client, wanted)) as calls:
            async for call in calls:
                if output is Format.JSON:
                    _print_json_line(call)
                elif isinstance(call, int):
                    print(f"... {call} requests came too fast to be shown", file=sys.stderr)
                else:
                    print(_line(call, Ink(sys.stdout)), flush=True)
    finally:
        await client.close()


def _print_json_line(call: ApiCall | int) -> None:
    import json

    from netkit.cli.output import as_plain

    value = {"lost": call} if isinstance(call, int) else as_plain(call)
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _line(call: ApiCall, ink: Ink) -> str:
    from datetime import datetime

    moment = datetime.fromtimestamp(call.time).strftime("%H:%M:%S.%f")[:-3]
    code = "open" if call.code == 0 else str(call.code)
    code = ink.bad(code) if call.code >= 400 else ink.good(code)
    place = "/".join(part for part in (call.namespace, call.name) if part)
    took = "" if call.code == 0 else _duration(call.seconds)
    waited = f" (waited {_duration(call.waited)})" if call.waited >= 0.001 else ""
    subject = f"{call.verb} {call.what} {place}".rstrip()
    return f"{moment}  {code}  {took:>8}  {subject}  {ink.dim(f'{call.user} {call.agent}')}{waited}".rstrip()


def _duration(seconds: float) -> str:
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 9.5 else f"{seconds:.0f} s"
