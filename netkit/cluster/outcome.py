"""How nodes' agents answer a wish that a command has written down: still at it, done, or failed.

`proxy_choice` and `network_choice` say what is wished for, and keep the files.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeVar

from netkit.kernel.file_watch import FileWatch

SILENT = "no word from the node's agent"


class State(StrEnum):
    """What an agent is doing with the wish."""

    SWITCHING = "switching"
    SERVING = "serving"
    FAILED = "failed"


class Answer(Protocol):
    """What an agent writes. `asked` is the wish it is about."""

    @property
    def asked(self) -> str: ...

    @property
    def state(self) -> State: ...


A = TypeVar("A", bound=Answer)


async def last_word(read: Callable[[], A | None], asked: str, watch: FileWatch) -> A:
    """The agent's last word about the wish; `read` reads the file that `watch` watches."""
    while True:
        answer = read()
        if answer and answer.asked == asked and answer.state is not State.SWITCHING:
            return answer
        await watch.changed()
