"""Asks the keepers for other nodes or cables, and waits until it is so.

Called by commands that hold the cluster's lock.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.roster import NodeRecord, Roster, RosterFile
from netkit.kernel.file_watch import DirectoryWatch

_PATIENCE_SECONDS: Final = 60.0


def read_roster(profile: Profile) -> tuple[ClusterFacts, Roster]:
    """The cluster as it is now. Raises NoSuchCluster."""
    facts = profile.facts()
    roster = RosterFile(profile.directory).read()
    if roster is None:
        raise ClusterError(
            f"cluster {profile.name} was made by another version of netkit",
            f"make it anew: netkit down -p {profile.name}, netkit up -p {profile.name}",
        )
    return facts, roster


def node_of(profile: Profile, roster: Roster, name: str) -> NodeRecord:
    """The node of that name. Raises ClusterError, naming those that there are."""
    node = roster.node(name)
    if node is None:
        raise ClusterError(
            f"cluster {profile.name} has no node {name}", f"there are: {', '.join(roster.names())}"
        )
    return node


def ask(profile: Profile, roster: Roster) -> Roster:
    """Have the keepers make it so; the roster as they have it now. Raises ClusterError with what stands against it."""
    wanted = roster.anew()
    files = RosterFile(profile.directory)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with DirectoryWatch(files.directory) as watch:
        files.write(wanted)
        while True:
            answer = files.answer()
            if answer is not None and answer.asked == wanted.asked:
                if answer.error:
                    raise ClusterError(answer.error, f"more is in {profile.logs / 'keeper.log'}")
                return wanted
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([watch], [], [], left)[0]:
                raise ClusterError(
                    f"the keeper of cluster {profile.name} does not answer",
                    f"see whether it runs: netkit status -p {profile.name}",
                )
            watch.taken()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C from leaving half of what has to be done as a whole."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
