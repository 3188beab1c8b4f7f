"""Brings a cluster up: checks, then a launcher process that builds and keeps it, then waits until it can be used.

Called by `netkit up`. Whatever goes wrong, Ctrl-C included, everything made so far is removed again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import TextIO

from controlplane.client import kubeconfig
from controlplane.client.client import Client
from controlplane.client.kubeconfig import Credentials
from controlplane.client.transport import ConnectionFailed
from controlplane.resources import catalog
from controlplane.resources.kind import Kind
from netkit.cluster import cluster_topology
from netkit.cluster.access import ADMIN_STEM, admin_client
from netkit.cluster.config import ClusterConfig, RouteSource
from netkit.cluster.doctor import require_mode, require_network
from netkit.cluster.down import remove
from netkit.cluster.errors import ClusterError, ClusterExists, ConfigError, StartError
from netkit.cluster.keeper import ACTIVE
from netkit.cluster.launch import launch
from netkit.cluster.network_choice import Choice, ChoiceFile
from netkit.cluster.plan import Plan
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.routing import require_daemon
from netkit.cluster.topology import Topology
from netkit.cluster.topology_layout import NoRoom, needs_base
from netkit.fabric.host import networks_in_use
from netkit.fabric.segment import choose_segment
from netkit.fabric.shaping import FEATURES, NETEM, lacking, shaped
from netkit.fabric.spec import host_link_name
from netkit.kernel.ledger import Ledger
from netkit.kernel.probe import features
from netkit.kernel.process import fork_recorded
from netkit.proxy.settings import ProxyMode

log = logging.getLogger(__name__)

_READY_SECONDS = 60.0
_AGAIN_SECONDS = 0.1
_NEEDED_BY_PODS = ((catalog.SERVICE_ACCOUNT, "default"), (catalog.CONFIG_MAP, "kube-root-ca.crt"))
"""What controllers make in the namespace `default`, and without which nobody can make a pod there."""


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step of `up` and the seconds it took."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class UpResult:
    """What `up` made, and how long each step took."""

    cluster: ClusterFacts
    steps: tuple[Step, ...] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        return self.cluster.name


Report = Callable[[Step], None]


def default_kubeconfig() -> Path:
    return kubeconfig.default_path()


def up(config: ClusterConfig, kubeconfig_path: Path, report: Report) -> UpResult:
    """Bring up a cluster and write its context; returns when all its nodes are Ready.

    Raises ClusterExists, ConfigError and StartError; then nothing of the cluster is left.
    """
    profile = Profile(config.name)
    steps: list[Step] = []

    def done(step: Step) -> None:
        steps.append(step)
        report(step)

    with profile.lock():
        if profile.exists:
            raise _exists(profile)
        require_mode(ProxyMode(config.proxy.mode))
        require_network(config.network.mode)
        if config.network.routes is RouteSource.BGP:
            require_daemon()
        segment = _choose_segment(config)
        with _listen(config.api_port) as loopback:
            plan = Plan(config, segment, loopback.getsockname()[1])
            plan = replace(plan, netem=_check_fabric(plan))
            profile.directory.mkdir(mode=0o700, parents=True)
            try:
                facts = _bring_up(plan, profile, loopback, kubeconfig_path, done)
            except BaseException:
                _give_up(profile)
                raise
    return UpResult(facts, tuple(steps))


def _exists(profile: Profile) -> ClusterExists:
    name = profile.name
    try:
        profile.facts()
    except ClusterError as error:
        return ClusterExists(error.message, error.hint)
    return ClusterExists(
        f"cluster {name} is up already",
        f"look at it: netkit status -p {name}; remove it: netkit down -p {name}",
    )


def _choose_segment(config: ClusterConfig) -> IPv4Network:
    wanted, topology = config.network.segment, config.topology
    used = set(networks_in_use())
    if topology is not None:
        given = {segment.subnet for segment in topology.segments if segment.subnet is not None}
        _refuse_used(topology, used)
        if not needs_base(topology):
            return next(iter(given))
        used |= given
    try:
        if wanted is not None:
            return choose_segment(wanted, used)
        return choose_segment(None, used | {config.network.pod_subnet, config.network.service_subnet})
    except ValueError as error:
        raise ConfigError(f"network.segment: {error}") from None


def _check_fabric(plan: Plan) -> bool:
    """Whether every machine gets an address, and every cable can do what it shall, before anything is made.

    The answer is whether netem is what does it.
    """
    try:
        spec = plan.fabric()
    except NoRoom as error:
        raise ConfigError(f"topology: {error}") from None
    if not shaped(spec):
        return False
    present = {feature.name for feature in features(FEATURES) if feature.present}
    if missing := lacking(spec, present):
        raise ConfigError(
            f"topology: this kernel cannot do what links shall: {'; '.join(missing)}",
            "netkit doctor says how to get it",
        )
    return NETEM in present


def _refuse_used(topology: Topology, used: Iterable[IPv4Network]) -> None:
    for number, segment in enumerate(topology.segments):
        clash = [network for network in sorted(used) if segment.subnet and network.overlaps(segment.subnet)]
        if clash:
            raise ConfigError(
                f"topology.segments[{number}].subnet: {segment.subnet} overlaps {clash[0]}, which this machine uses "
                "already",
                "choose another range, or leave it out to have a free one chosen",
            )


def _listen(port: int) -> socket.socket:
    """The API's socket on the loopback; it outlives restarts of the control plane, so no connection is refused."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=1024)
    except OSError as error:
        if port:
            raise ConfigError(
                f"api.port: port {port} of the loopback is in use", "choose another, or 0 for any free one"
            ) from None
        raise StartError(f"no port of the loopback could be opened: {error.strerror}") from None


def _give_up(profile: Profile) -> None:
    """Remove what was made, undisturbed by a second Ctrl-C; a failure of that is shown with the cause."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.environ.get("NETKIT_VERBOSE"):
        for path in sorted(profile.logs.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text(errors='replace')}", file=sys.stderr)
    try:
        remove(profile)
    finally:
        signal.signal(signal.SIGINT, previous)


def _bring_up(
    plan: Plan, profile: Profile, loopback: socket.socket, kubeconfig_path: Path, done: Report
) -> ClusterFacts:
    reader, writer = os.pipe()
    for directory in (profile.logs, profile.run):
        directory.mkdir(mode=0o700)
    network = plan.config.network
    ChoiceFile(profile.directory).write(Choice(network.setting))
    # A signal of this terminal's is for the command alone; the cluster's processes have their own session.
    launcher = fork_recorded(
        Ledger(profile.ledger, ACTIVE), ACTIVE, lambda: launch(plan, profile, loopback, writer)
    )
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as progress:
        _follow(progress, done)
    begin = time.monotonic()
    facts = _write_facts(plan, profile, kubeconfig_path)
    asyncio.run(_wait_ready(profile, plan))
    done(Step(f"{plan.config.nodes} node(s) Ready", time.monotonic() - begin))
    log.debug("keeper is process %d", launcher.pid)
    _write_context(plan, profile, kubeconfig_path)
    return facts


def _follow(progress: TextIO, done: Report) -> None:
    """Report the launcher's steps until it says that all parts are started. Raises StartError with its reason."""
    while select.select([progress], [], [], _READY_SECONDS)[0]:
        line = progress.readline()
        if not line:
            raise StartError(
                "the cluster's first process ended without a word", "run it again with netkit -v"
            )
        message = json.loads(line)
        if "error" in message:
            raise StartError(message["error"], message.get("hint", ""))
        if message.get("started"):
            return
        done(Step(message["text"], message["seconds"]))
    raise StartError(f"no progress within {_READY_SECONDS:.0f} s")


async def _wait_ready(profile: Profile, plan: Plan) -> None:
    """Return when every node is Ready and pods can be made. Raises StartError naming what is not there in time."""
    client = admin_client(profile, plan.server)
    waiting = {*plan.nodes, *(kind.kind for kind, _ in _NEEDED_BY_PODS)}
    try:
        # In a task of its own: Python 3.11's groups leave the task of a failed one half cancelled, which would turn the
        # time's end into a bare CancelledError.
        await asyncio.wait_for(_all_ready(client, plan.nodes, waiting), _READY_SECONDS)
    except TimeoutError:
        raise StartError(
            f"not Ready within {_READY_SECONDS:.0f} s: {', '.join(sorted(waiting))}",
            f"logs are in {profile.logs}",
        ) from None
    finally:
        await client.close()


async def _all_ready(client: Client, nodes: Collection[str], waiting: set[str]) -> None:
    """Empty `waiting` as its nodes become Ready and the rest is there. A server that is just being started again is
    asked again."""
    while waiting:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_watch_ready(client, nodes, waiting))
                for kind, name in _NEEDED_BY_PODS:
                    group.create_task(_watch_present(client, kind, name, waiting))
        except* ConnectionFailed as error:
            log.info("%s: asked again", error.exceptions[0])
            await asyncio.sleep(_AGAIN_SECONDS)


async def _watch_ready(client: Client, nodes: Collection[str], waiting: set[str]) -> None:
    async with aclosing(client.watch(catalog.NODE, bookmarks=False)) as events:
        async for event in events:
            conditions = event.object.get("status", {}).get("conditions") or ()
            if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
                waiting.discard(event.object["metadata"]["name"])
            if waiting.isdisjoint(nodes):
                return


async def _watch_present(client: Client, kind: Kind, name: str, waiting: set[str]) -> None:
    selector = f"metadata.name={name}"
    watch = client.watch(kind, "default", field_selector=selector, bookmarks=False)
    async with aclosing(watch) as events:
        async for _ in events:
            waiting.discard(kind.kind)
            return


def _write_facts(plan: Plan, profile: Profile, kubeconfig_path: Path) -> ClusterFacts:
    network = plan.config.network
    existed = kubeconfig_path.exists()
    facts = ClusterFacts(
        name=plan.config.name,
        server=plan.server,
        segment=str(plan.segment),
        pod_subnet=str(network.pod_subnet),
        service_subnet=str(network.service_subnet),
        host_link=host_link_name(plan.config.name),
        host_address=str(plan.fabric().host_address.ip),
        kubeconfig=str(kubeconfig_path.absolute()),
        kubeconfig_created=not existed,
        previous_context=kubeconfig.current_context(kubeconfig_path) if existed else "",
        machines=plan.machines(),
        attach=", ".join(network.cni.conflist.types) if network.cni else network.attach,
        cni_path=network.cni.path if network.cni else (),
        routes=network.routes,
    )
    cluster_topology.write(profile, plan.topology)
    profile.write_facts(facts)
    return facts


def _write_context(plan: Plan, profile: Profile, path: Path) -> None:
    credentials = Credentials(
        server=plan.server,
        ca=(profile.pki / "ca.crt").read_text(),
        certificate=(profile.pki / f"{ADMIN_STEM}.crt").read_text(),
        key=(profile.pki / f"{ADMIN_STEM}.key").read_text(),
    )
    name = f"netkit-{plan.config.name}"
    kubeconfig.write_context(profile.admin_kubeconfig, name, credentials)
    kubeconfig.write_context(path, name, credentials)
