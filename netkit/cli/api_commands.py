"""`netkit api`: what the API server is asked, and by whom."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, Ink, print_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netkit.cluster.api_requests import ApiCall, Caller, CallGroup, Filter

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the API server at work.",
)


@app.callback()
def group() -> None:
    """Look at the API server at work."""


def _verbs(incomplete: str) -> list[str]:
    """Tab completion of `--verb`."""
    verbs = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    return [verb for verb in verbs if verb.startswith(incomplete)]


@app.command()
def requests(
    profile: ProfileOption = "lab",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print each request as it comes, until Ctrl-C.")
    ] = False,
    detail: Annotated[
        bool, typer.Option("--detail", "-d", help="One line for each user, verb and resource.")
    ] = False,
    user: Annotated[
        str, typer.Option("--user", "-u", help="Only of users or clients whose name holds this.")
    ] = "",
    resource: Annotated[
        str, typer.Option("--resource", "-r", help="Only for resources (or paths) whose name holds this.")
    ] = "",
    verb: Annotated[
        str,
        typer.Option("--verb", help="Only this verb: get, list, watch, create, ...", autocompletion=_verbs),
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only of this namespace.")] = "",
    since: Annotated[
        str,
        typer.Option("--since", metavar="DURATION", help="Only of the last 30s, 5m, ... and what is open."),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-l", min=0, help="Lines at most; 0 is all of them.")] = 30,
    output: OutputOption = Format.TEXT,
) -> None:
    """Show who asks the API server what: by who asks, in detail with -d, or each request live with -w."""
    import asyncio

    from netkit.cluster.api_requests import Filter

    wanted = Filter(user, resource, verb, namespace, _moment(since))
    if not watch:
        asyncio.run(_show(profile, wanted, output, detail=detail, limit=limit))
        return
    try:
        asyncio.run(_follow(profile, wanted, output))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _moment(since: str) -> float:
    """Seconds since 1970, that long ago; 0 without an age."""
    import time

    from netkit.cluster.fields import Fields

    return time.time() - Fields({"--since": since}).seconds("--since", 0.0) if since else 0.0


async def _show(profile: str, wanted: Filter, output: Format, *, detail: bool, limit: int) -> None:
    from netkit.cluster.access import admin_client
    from netkit.cluster.api_requests import callers, grouped, read
    from netkit.cluster.profile import Profile

    client = admin_client(Profile(profile), Profile(profile).facts().server)
    try:
        latest, still_open = await read(client, wanted)
    finally:
        await client.close()
    people, groups = callers(latest, still_open), grouped(latest, still_open)
    if output is Format.JSON:
        print_json({"callers": people, "groups": groups, "latest": latest, "open": still_open})
        return
    rows = _detailed(groups) if detail else _by_caller(people)
    print("\n".join(rows[: limit + 1] if limit else rows))
    left_out = len(rows) - 1 - limit if limit else 0
    if left_out > 0:
        print(f"... and {left_out} more: --limit 0 shows all")
    print()
    hint = (
        "Each one as it comes: -w" if detail else "What each of them asks: -d; each request as it comes: -w"
    )
    print(f"{len(latest)} requests, {len(still_open)} open. {hint}")


def _by_caller(people: Sequence[Caller]) -> list[str]:
    headers = ["WHO", "REQUESTS", "OPEN", "FAILED", "PER SECOND", "MOSTLY"]
    rows = [
        (
            one.who, one.count, one.open or "", one.failed or "", f"{one.per_second:.1f}", ", ".join(one.mostly)
        )
        for one in people
    ]  # fmt: skip
    return table(headers, rows).splitlines()


def _detailed(groups: Sequence[CallGroup]) -> list[str]:
    headers = ["USER", "CLIENT", "VERB", "WHAT", "COUNT", "OPEN", "FAILED", "PER SECOND", "MEDIAN"]
    rows = [
        (
            group.user, group.agent or "-", group.verb, group.what, group.count, group.open or "", group.failed or "",
            f"{group.per_second:.1f}", _duration(group.median_seconds) if group.median_seconds else "",
        )
        for group in groups
    ]  # fmt: skip
    return table(headers, rows).splitlines()


async def _follow(profile: str, wanted: Filter, output: Format) -> None:
    from contextlib import aclosing

    from netkit.cluster.access import admin_client
    from netkit.cluster.api_requests import follow
    from netkit.cluster.errors import ClusterError
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
    raise ClusterError(
        f"the API server of cluster {profile} ended the list of requests",
        f"look at it: netkit status -p {profile}",
    )


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
