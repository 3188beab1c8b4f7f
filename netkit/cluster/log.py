"""Where the processes of a cluster write: each to a file of its own in the cluster's `logs` directory."""

from __future__ import annotations

import logging
import os
from pathlib import Path


def log_to(path: Path) -> None:
    """Send this process's output and log to a file; its input is empty."""
    with open(os.devnull, "rb") as empty:
        os.dup2(empty.fileno(), 0)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    level = logging.DEBUG if os.environ.get("NETKIT_VERBOSE") else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.captureWarnings(True)
