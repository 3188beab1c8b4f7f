"""What the runtime process is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """`socket` is the Unix socket to serve; `state_dir` a directory of the node, hidden from containers;
    `hidden` further directories containers shall not see (keys of the cluster).
    """

    node_name: str
    socket: Path
    state_dir: Path
    hidden: tuple[Path, ...] = field(default=())

    @property
    def scratch(self) -> Path:
        """An empty directory containers build their root in (in mount namespaces of their own)."""
        return self.state_dir / "scratch"
