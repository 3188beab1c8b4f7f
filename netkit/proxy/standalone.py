"""kube-proxy as a program of its own: against any API server, in the network namespace it runs in or a named one.

Called by `netkit proxy`. Everything it does to the kernel goes through the same agent as in a cluster of netkit's. It
ends with success when it is told to by a signal, leaving the rules; a changed configuration file ends it with an
error, as kube-proxy, so that a supervisor starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlplane.client import kubeconfig
from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.client.kubeconfig import Credentials
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.resources.catalog import NODE
from netkit import KUBERNETES_VERSION, VERSION
from netkit.kernel.file_watch import FileWatch
from netkit.kernel.netns import HOST, Namespace, open_namespace
from netkit.proxy.addresses import Address, Family, parse_network
from netkit.proxy.agent import node_facts
from netkit.proxy.assembly import assemble
from netkit.proxy.configuration.addresses import parse_ip
from netkit.proxy.configuration.apply import doubts, primary_family, proxy_settings
from netkit.proxy.configuration.document import KubeProxyConfiguration
from netkit.proxy.configuration.encode import as_json, encode
from netkit.proxy.configuration.flags import Options, complete, read
from netkit.proxy.configuration.validation import validated
from netkit.proxy.logs import log_as
from netkit.proxy.modes import Site, remove_leftovers, supported_families
from netkit.proxy.node_kernel import NamespaceKernel
from netkit.proxy.settings import ProxyMode, ProxySettings

log = logging.getLogger(__name__)

_LOOPBACK = parse_network("127.0.0.0/8")
_OOM_SCORE_ADJ = Path("/proc/self/oom_score_adj")


class ProxyError(Exception):
    """The proxy cannot start, or cannot go on. `message` for users, `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationChanged(ProxyError):
    """The configuration file is not the one the proxy was started with."""


@dataclass(frozen=True, slots=True)
class Node:
    """This machine's Node as it was found, and its addresses: internal before external ones."""

    name: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[str, ...]


def run(texts: Mapping[str, Sequence[str]]) -> None:
    """Do what the flags ask for; `texts` has those that were given, each with its values as they were typed.

    Raises ProxyError and all that `serve` and `clean_up` raise.
    """
    given = read(texts)
    if given.flag("version"):
        print(f"Kubernetes {KUBERNETES_VERSION}")
        return
    file = _read_file(given.text("config"))
    options = complete(given, file)
    log_as(options.configuration.logging)
    if options.warning:
        log.warning("using lenient decoding as strict decoding failed: %s", options.warning)
    validated(options.configuration)
    if options.write_config_to:
        _write_file(Path(options.write_config_to), encode(options.configuration))
        log.info("wrote configuration to %s", options.write_config_to)
    elif options.cleanup:
        asyncio.run(clean_up(options))
    else:
        asyncio.run(serve(options, file))


async def clean_up(options: Options) -> None:
    """Remove the rules of all modes. Raises an ExceptionGroup of KernelErrors."""
    with _namespace(options) as ns:
        settings = proxy_settings(options.configuration)
        await remove_leftovers(Site(node_name(options.configuration), ns), list(Family), settings=settings)


async def serve(options: Options, file: bytes | None = None) -> None:
    """Be the proxy until SIGTERM or SIGINT; with `init_only` do the preparations and return.

    `file` is the content of the configuration file that the options were made from. Raises ProxyError,
    ConfigurationChanged, KubeconfigError, ConfigurationError and KernelError.
    """
    stop = _stop_signals()
    async with AsyncExitStack() as stack:
        ns = stack.enter_context(_namespace(options))
        watch = (
            stack.enter_context(FileWatch(Path(options.config_file), file)) if options.config_file else None
        )
        client = Client(credentials(options).transport(), f"kube-proxy/{VERSION}")
        stack.push_async_callback(client.close)
        ends = [_end_on_change(watch)] if watch is not None else []
        await _first_of(_until(stop), *ends, _work(options, ns, client))


def node_name(config: KubeProxyConfiguration) -> str:
    """The name of this machine's Node. Raises ProxyError."""
    name = (config.hostname_override or socket.gethostname()).strip().lower()
    if not name:
        raise ProxyError("empty hostname is invalid", "give the Node's name with --hostname-override")
    return name


def credentials(options: Options) -> Credentials:
    """How to reach the API server: the kubeconfig's word or a pod's, and --master over it. Raises KubeconfigError."""
    path = options.configuration.client_connection.kubeconfig
    if path:
        found = kubeconfig.load(Path(path))
        return replace(found, server=options.master) if options.master else found
    if options.master:
        return Credentials(options.master, "")
    log.info("neither kubeconfig file nor master URL was specified, falling back to in-cluster config")
    return kubeconfig.in_cluster()


async def _work(options: Options, ns: Namespace, client: Client) -> None:
    """Everything but waiting for the end."""
    config = options.configuration
    _set_oom_score(config.oom_score_adj)
    node = await _wait_for_node(client, node_name(config))
    site = Site(node.name, ns)
    settings = proxy_settings(config, node.addresses)
    families = await _families(config, settings, site, node)
    agent = assemble(client, node.name, settings, site, families, as_json(config))
    if options.init_only:
        await agent.prepare()
        await asyncio.to_thread(_prepare_loopback, settings, families, ns)
        return
    shown = " and ".join(families)
    log.info("%s: Kubernetes %s, mode %s for %s", node.name, KUBERNETES_VERSION, settings.mode, shown)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.run(), name="proxy agent")
        await agent.synced()
        log.info("%s: all rules stand", node.name)
        await _take_over(settings, site)


async def _take_over(settings: ProxySettings, site: Site) -> None:
    """Our rules stand: those of other modes, which served until now, can go. What stays is no reason to end."""
    try:
        await remove_leftovers(site, list(Family), settings.mode, settings)
    except ExceptionGroup as group:
        for error in group.exceptions:
            log.warning("%s: left-overs of another mode stay: %s", site.node_name, error)
    else:
        log.info("%s: only rules of mode %s are left", site.node_name, settings.mode)


async def _wait_for_node(client: Client, name: str) -> Node:
    """The Node, as soon as the API server has it."""
    nodes = Informer(client, NODE, field_selector=f"metadata.name={name}")
    found: asyncio.Future[Object] = asyncio.get_running_loop().create_future()

    def seen(old: Object | None, new: Object | None) -> None:
        if new is not None and not found.done():
            found.set_result(new)

    nodes.on_change(seen)
    async with asyncio.TaskGroup() as group:
        informer = group.create_task(nodes.run(), name="Node")
        await nodes.synced()
        if not found.done():
            log.warning(
                '%s: no Node of this name; waiting for it ("--hostname-override" gives another name)', name
            )
        node = await found
        informer.cancel()
    facts = node_facts(node)
    external = [item["address"] for item in _addresses(node) if item.get("type") == "ExternalIP"]
    addresses = dict.fromkeys(facts.addresses)
    addresses |= {address: None for text in external if (address := parse_ip(text)) is not None}
    return Node(name, tuple(addresses), facts.pod_cidrs)


async def _families(
    config: KubeProxyConfiguration, settings: ProxySettings, site: Site, node: Node
) -> list[Family]:
    """The families to proxy, the primary one first. Raises ProxyError when that one cannot be."""
    families = await supported_families(settings.mode, site)
    primary = primary_family(config, node.addresses)
    if primary not in families:
        raise ProxyError(
            f'no support for primary IP family "{primary}"', "netkit doctor shows what is missing"
        )
    if not node.addresses and not settings.node_address:
        log.warning(
            "%s: can't determine this node's IP, assuming loopback;"
            " if this is incorrect, please set the --bind-address flag",
            node.name,
        )
    for doubt in doubts(config, settings, primary, node.pod_cidrs, dual=len(families) > 1):
        log.warning("%s: configuration may be incomplete or incorrect: %s", node.name, doubt)
    return sorted(families, key=lambda family: family is not primary)


def _prepare_loopback(settings: ProxySettings, families: Sequence[Family], ns: Namespace) -> None:
    """Loopback NodePorts need a setting that only root may change. Blocks."""
    if (
        settings.mode is not ProxyMode.IPTABLES
        or not settings.localhost_node_ports
        or Family.IPV4 not in families
    ):
        return
    ranges = settings.node_port_ranges(Family.IPV4)
    if not ranges or any(network.overlaps(_LOOPBACK) for network in ranges):
        NamespaceKernel(ns).route_localnet()


def _read_file(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ProxyError(f"failed complete: open {path}: {(error.strerror or str(error)).lower()}") from None


def _write_file(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ProxyError(f"open {path}: {(error.strerror or str(error)).lower()}") from None


def _set_oom_score(score: int | None) -> None:
    """Lowering it takes CAP_SYS_RESOURCE, and a proxy works without."""
    if score is None:
        return
    try:
        _OOM_SCORE_ADJ.write_text(str(score))
    except OSError as error:
        log.debug("oom_score_adj stays as it is: %s", error)


def _namespace(options: Options) -> AbstractContextManager[Namespace]:
    """Where the proxy works. Raises KernelError when there is no namespace of that name."""
    return open_namespace(options.netns) if options.netns else nullcontext(HOST)


def _stop_signals() -> asyncio.Event:
    """Set when the process is told to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
    log.info("told to stop; the rules stay")


async def _end_on_change(watch: FileWatch) -> None:
    await watch.changed()
    raise ConfigurationChanged("content of the proxy server's configuration file was updated")


async def _first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Do all at once until one ends; end the others, then return or raise as that one did."""
    tasks = [asyncio.ensure_future(one) for one in work]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()


def _addresses(node: Object) -> Sequence[Mapping[str, str]]:
    found: Sequence[Mapping[str, str]] = dig(node, "status", "addresses", default=())
    return found
