"""Choice of a cluster's segment so that it collides with nothing this machine uses. Pure.

Called by `netkit.cluster` with what `host.networks_in_use` has read.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Final

CANDIDATES: Final = tuple(IPv4Network(f"172.{second}.0.0/16") for second in range(18, 32))
"""Where a segment is looked for, in this order."""


def choose_segment(preferred: IPv4Network | None, used_by_host: Iterable[IPv4Network]) -> IPv4Network:
    """`preferred` if it is given, else the first candidate that overlaps nothing in `used_by_host`.

    ValueError when `preferred` overlaps (naming with what), or when no candidate is free.
    """
    used = sorted(set(used_by_host))
    if preferred is not None:
        clashes = [network for network in used if network.overlaps(preferred)]
        if clashes:
            texts = ", ".join(map(str, clashes))
            raise ValueError(f"segment {preferred} overlaps {texts}, which this machine uses already")
        return preferred
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise ValueError(
        f"no free segment from {CANDIDATES[0]} to {CANDIDATES[-1]}: this machine uses parts of all; "
        "name a free network in the configuration"
    )
