"""The one check every command that touches namespaces begins with. Imports nothing heavy."""

from __future__ import annotations

import os

from netkit.cluster.errors import ClusterError


def require_root() -> None:
    """Raise ClusterError unless this process may make and enter network namespaces."""
    if os.geteuid() != 0:
        raise ClusterError("this needs root: clusters are made of network namespaces", "run it with sudo")
