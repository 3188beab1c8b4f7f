"""Which mode the pod network shall have, and which each node has: one file of the cluster, and one of each node.

The command `network mode` writes the choice, the nodes' agents follow it and write how it went. The choice is there
from `up` on and outlives agents, keepers and a crash of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netkit.cluster.outcome import State
from netkit.cluster.state_file import read, write
from netkit.podnet.modes import NetworkMode, Setting


@dataclass(frozen=True, slots=True)
class Choice:
    """A mode for all nodes. `asked` tells one wish from the next; empty: the cluster's configuration."""

    setting: Setting
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the wish `asked` on one node. `setting` is at work; `mtu` is that of its pods, in bytes.

    `encryption` says who encrypts, "" if nobody does.
    """

    asked: str
    state: State
    setting: Setting
    mtu: int = 0
    seconds: float = 0.0
    error: str = ""
    encryption: str = ""


class ChoiceFile:
    """The cluster's file, in its state directory `cluster`."""

    def __init__(self, cluster: Path) -> None:
        self.path = cluster / "network" / "choice.json"

    def read(self) -> Choice | None:
        """The last wish, None in a cluster that never had one."""
        found = read(self.path)
        return Choice(_setting(found), found["asked"]) if found is not None else None

    def write(self, choice: Choice) -> None:
        write(self.path, {**_plain(choice.setting), "asked": choice.asked}, durable=True)


class OutcomeFile:
    """A node's file, in its state directory `node`."""

    def __init__(self, node: Path) -> None:
        self.path = node / "network-outcome.json"

    def read(self) -> Outcome | None:
        """The agent's last word, None before the first."""
        found = read(self.path)
        if found is None:
            return None
        return Outcome(
            found["asked"],
            State(found["state"]),
            _setting(found),
            found["mtu"],
            found["seconds"],
            found["error"],
            found["encryption"],
        )

    def write(self, outcome: Outcome) -> None:
        write(
            self.path,
            {
                **_plain(outcome.setting), "asked": outcome.asked, "state": outcome.state, "mtu": outcome.mtu,
                "seconds": outcome.seconds, "error": outcome.error, "encryption": outcome.encryption,
            },
        )  # fmt: skip


def _plain(setting: Setting) -> dict[str, Any]:
    return {
        "mode": setting.mode,
        "directRouting": setting.direct_routing,
        "both": setting.both,
        "nodeRoutes": setting.node_routes,
    }


def _setting(found: dict[str, Any]) -> Setting:
    return Setting(
        NetworkMode(found["mode"]),
        found["directRouting"],
        _mode(found["both"]),
        found.get("nodeRoutes", False),
    )


def _mode(name: str | None) -> NetworkMode | None:
    return NetworkMode(name) if name else None
