"""Takes a cluster down: its keepers first, so that nothing is started again, then everything its ledgers name.

Right after any crash, and repeatable: what could not be removed stays in the ledger for the next `down`.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from controlplane.client import kubeconfig
from netkit.cluster.errors import ClusterError
from netkit.cluster.keeper import ACTIVE, STANDBY, STOPPING, recorded_processes
from netkit.cluster.profile import ClusterFacts, Profile, no_such_cluster
from netkit.kernel.ledger import Entry, EntryKind, read_all
from netkit.kernel.process import alive, terminate_all
from netkit.kernel.teardown import teardown


@dataclass(frozen=True, slots=True)
class DownResult:
    """What was removed. `kubeconfig` is the file the context was taken out of ("" = none)."""

    name: str
    processes: int
    namespaces: int
    seconds: float
    kubeconfig: str


def down(name: str) -> DownResult:
    """Remove cluster `name`. Raises NoSuchCluster, or ExceptionGroup with all that could not be removed."""
    profile = Profile(name)
    if not profile.exists:
        raise no_such_cluster(name, profile.directory.parent)
    with profile.lock():
        return remove(profile)


def remove(profile: Profile) -> DownResult:
    """The same for a caller that holds the cluster's lock (`up`, when it gives up half way)."""
    begin = time.monotonic()
    stop_keepers(profile)
    entries = read_all(profile.ledger)
    facts = _facts(profile)
    errors: list[Exception] = []
    try:
        teardown(profile.ledger)
    except ExceptionGroup as group:
        errors.extend(group.exceptions)
    if facts:
        try:
            _remove_context(facts)
        except (OSError, kubeconfig.KubeconfigError) as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"cluster {profile.name} could not be removed completely", errors)
    shutil.rmtree(profile.directory)
    return DownResult(
        name=profile.name,
        processes=sum(entry.kind is EntryKind.PROCESS for entry in entries),
        namespaces=sum(entry.kind is EntryKind.NAMESPACE for entry in entries),
        seconds=time.monotonic() - begin,
        kubeconfig=facts.kubeconfig if facts else "",
    )


def stop_keepers(profile: Profile) -> None:
    """End both keepers for good: with the `stopping` file neither takes the other's place."""
    (profile.directory / STOPPING).touch()
    deadline = time.monotonic() + 5.0
    while keepers := [entry for entry in recorded_processes(profile.ledger) if _runs(entry)]:
        failed = terminate_all([entry.pid_and_start() for entry in keepers], grace=0.5)
        if time.monotonic() > deadline:
            raise ClusterError(f"the keeper of cluster {profile.name} cannot be ended: {failed}")


def _runs(entry: Entry) -> bool:
    return entry.detail in (ACTIVE, STANDBY) and alive(*entry.pid_and_start())


def _facts(profile: Profile) -> ClusterFacts | None:
    try:
        return profile.facts()
    except ClusterError:
        return None


def _remove_context(facts: ClusterFacts) -> None:
    """Take the cluster's context out of the kubeconfig, and kubectl's cache of this server."""
    path = Path(facts.kubeconfig)
    name = f"netkit-{facts.name}"
    if path.exists():
        was_current = kubeconfig.current_context(path) == name
        kubeconfig.remove_context(path, name)
        if facts.kubeconfig_created and kubeconfig.is_empty(path):
            path.unlink()
        elif was_current and facts.previous_context:
            kubeconfig.use_context(path, facts.previous_context)
    host = facts.server.removeprefix("https://").replace(":", "_")
    for kind in ("discovery", "http"):
        cache = Path(os.environ.get("KUBECACHEDIR") or Path.home() / ".kube" / "cache") / kind / host
        shutil.rmtree(cache, ignore_errors=True)
