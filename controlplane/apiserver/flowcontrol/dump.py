"""The priority levels as they are now, in the comma separated form of upstream's debugging paths."""

from __future__ import annotations

from controlplane.apiserver.flowcontrol.gate import FairGate

DUMP_LEVELS = ("debug", "api_priority_and_fairness", "dump_priority_levels")
_COLUMNS = (
    "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
    "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests",
)  # fmt: skip


def dump_levels(gate: FairGate) -> str:
    """One line for each level, columns aligned. Requests whose clients left are not told apart (0)."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for name, level in sorted(gate.levels.items()):
        dispatched = sum(count for key, count in gate.dispatched.items() if key[1] == name)
        refused = {
            reason: sum(
                n for key, n in gate.rejected.items() if key[1] == name and (key[2] == "time-out") is reason
            )
            for reason in (False, True)
        }
        idle = not level.executing and not level.waiting
        numbers = (
            level.active_queues, str(idle).lower(), "false", level.waiting, level.executing, dispatched,
            refused[False], refused[True], 0,
        )  # fmt: skip
        rows.append((name, *map(str, numbers)))
    widths = [max(len(row[index]) for row in rows) + 2 for index in range(len(_COLUMNS))]
    return "".join(
        "".join(f"{cell},".ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(" ,") + "\n"
        for row in rows
    )
