"""Which proxy mode a node shall have, and which it has: two small files in the node's state directory.

The command `proxy-mode` writes the choice, the node's agent follows it and writes how it went. Both files are replaced
in one step, so a reader sees the old or the new one whole; the choice is on disk before the command goes on, and so
outlives agents, keepers and a crash of the machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from netkit.cluster.outcome import State
from netkit.cluster.state_file import read, write
from netkit.proxy.settings import NftablesLayout, ProxyMode


@dataclass(frozen=True, slots=True)
class Choice:
    """A mode, in nftables with a layout. `asked` tells one wish from the next; empty: the cluster's configuration."""

    mode: ProxyMode
    layout: NftablesLayout = NftablesLayout.KUBE_PROXY
    asked: str = ""

    @property
    def shown(self) -> str:
        """`iptables`, or `nftables (compact)`."""
        return (
            f"{self.mode} ({self.layout})" if self.layout is not NftablesLayout.KUBE_PROXY else str(self.mode)
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the wish `asked`. `mode` and `layout` are those at work; `error` says why the wish failed."""

    asked: str
    state: State
    mode: ProxyMode
    layout: NftablesLayout
    error: str = ""
    hint: str = ""
    seconds: float = 0.0


class ProxyFiles:
    """The two files of one node."""

    def __init__(self, directory: Path) -> None:
        self.choice_path = directory / "proxy-choice.json"
        self.outcome_path = directory / "proxy-outcome.json"

    def choice(self) -> Choice | None:
        """The last wish, None if there never was one."""
        found = read(self.choice_path)
        if found is None:
            return None
        return Choice(ProxyMode(found["mode"]), NftablesLayout(found["layout"]), found["asked"])

    def choose(self, choice: Choice) -> None:
        write(self.choice_path, asdict(choice), durable=True)

    def outcome(self) -> Outcome | None:
        """The agent's last word, None before the first."""
        found = read(self.outcome_path)
        if found is None:
            return None
        return Outcome(
            **{
                **found,
                "state": State(found["state"]),
                "mode": ProxyMode(found["mode"]),
                "layout": NftablesLayout(found["layout"]),
            }
        )

    def report(self, outcome: Outcome) -> None:
        write(self.outcome_path, asdict(outcome))
