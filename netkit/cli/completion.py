"""Tab completion that several commands share: words begin so, and there are none where there is no cluster."""

from __future__ import annotations

import typer


def machines(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of MACHINE."""
    return _machines(context, incomplete, nodes_only=False)


def nodes(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of --node."""
    return _machines(context, incomplete, nodes_only=True)


def segment_machines(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of a side of the segment: machines with commas between."""
    before, comma, last = incomplete.rpartition(",")
    chosen = before.split(",")
    found = [name for name in _machines(context, last, nodes_only=False) if name not in (*chosen, "switch")]
    return [f"{before}{comma}{name}" for name in found]


def segments(context: typer.Context, incomplete: str) -> list[str]:
    """Tab completion of --segment."""
    from netkit.cluster import cluster_topology
    from netkit.cluster.errors import ClusterError
    from netkit.cluster.profile import Profile

    try:
        topology = cluster_topology.read(Profile(context.params.get("profile") or "lab"))
    except (ClusterError, OSError):
        return []
    return [segment.name for segment in topology.segments if segment.name.startswith(incomplete)]


def _machines(context: typer.Context, incomplete: str, *, nodes_only: bool) -> list[str]:
    from netkit.cluster.errors import ClusterError
    from netkit.cluster.profile import Profile

    try:
        facts = Profile(context.params.get("profile") or "lab").facts()
    except ClusterError:
        return []
    found = facts.nodes if nodes_only else [machine.name for machine in facts.machines]
    return [name for name in found if name.startswith(incomplete)]
