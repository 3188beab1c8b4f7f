"""/debug/pprof of a proxy: what Python can say of what Go's profiles are asked for.

Under Go's paths, so that the same addresses are typed, but as text for people: `goroutine` lists tasks and threads,
`profile` is a profile of the loop's thread by functions. Served only when profiling is switched on.
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import pstats
import sys
import threading
import traceback
from collections.abc import Mapping

from aiohttp import web

from netkit.proxy.servers.status import Page, plain

PREFIX = "/debug/pprof"
_DEFAULT_SECONDS, _MOST_SECONDS = 30.0, 600.0


def profiling_pages() -> Mapping[str, Page]:
    """The pages by path."""
    profiles = {"goroutine": _stacks, "profile": _profile, "cmdline": _command_line}

    async def index(_: web.BaseRequest) -> web.Response:
        return plain("".join(f"{PREFIX}/{name}\n" for name in profiles))

    return {
        PREFIX: index,
        f"{PREFIX}/": index,
        **{f"{PREFIX}/{name}": page for name, page in profiles.items()},
    }


async def _command_line(_: web.BaseRequest) -> web.Response:
    return plain("\0".join(sys.argv))


async def _stacks(_: web.BaseRequest) -> web.Response:
    return plain(_tasks() + _threads())


def _tasks() -> str:
    out = io.StringIO()
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        out.write(f"task {task.get_name()!r}:\n")
        for frame in task.get_stack(limit=20):
            out.write("".join(traceback.format_list(traceback.extract_stack(frame, limit=1))))
        out.write("\n")
    return out.getvalue()


def _threads() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    out = io.StringIO()
    for number, frame in sys._current_frames().items():
        out.write(f"thread {names.get(number, '?')!r}:\n")
        out.write("".join(traceback.format_stack(frame)))
        out.write("\n")
    return out.getvalue()


async def _profile(request: web.BaseRequest) -> web.Response:
    """Profile for `?seconds=`; one at a time, as Python has it."""
    try:
        seconds = float(request.query.get("seconds", _DEFAULT_SECONDS))
    except ValueError:
        return plain("seconds must be a number\n", 400)
    if not 0 < seconds <= _MOST_SECONDS:
        return plain(f"seconds must be more than 0 and at most {_MOST_SECONDS:.0f}\n", 400)
    if sys.getprofile() is not None:
        return plain("Could not enable profiling: it is in use already\n", 500)
    profile = cProfile.Profile()
    profile.enable()
    try:
        await asyncio.sleep(seconds)
    finally:
        profile.disable()
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("cumulative").print_stats(80)
    return plain(out.getvalue())
