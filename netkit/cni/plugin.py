"""The plug-in `netkit-cni`: what it does for each command. Called by `main`, once per process.

It attaches a container as nodes of a cluster attach their pods (`netkit.podnet.sandbox`): to a bridge, or on a cable of
its own. Addresses come from another plug-in (`ipam.type`), or from a subnet that is named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from typing import Any

from netkit.cni import delegate, interface
from netkit.cni.attachments import Attachments, Made
from netkit.cni.delegate import Call
from netkit.cni.errors import CniError, Code
from netkit.cni.request import Command, Config, Request
from netkit.cni.result import Ip, Result, Route, parse, render
from netkit.cni.versions import GC_SINCE, LATEST, SUPPORTED, at_least
from netkit.kernel import netns
from netkit.kernel.netns import HOST, Namespace
from netkit.podnet.address import PoolExhausted, gateway, next_address
from netkit.podnet.attach import Attach
from netkit.podnet.pod import link_name
from netkit.podnet.sandbox import Plan

_ANYWHERE = "0.0.0.0/0"


def answer(request: Request) -> dict[str, Any] | None:
    """What is to be printed, None for nothing. Raises CniError and KernelError."""
    made = Attachments(request.config.data_dir, request.config.network)
    match request.command:
        case Command.ADD:
            return _add(request, made)
        case Command.DEL:
            _delete(request, made)
        case Command.CHECK:
            _check(request, made)
        case Command.GC:
            _collect(request, made)
        case Command.STATUS:
            _status(request, made)
        case Command.VERSION:
            return versions()
    return None


def versions() -> dict[str, Any]:
    """The answer to VERSION."""
    return {"cniVersion": LATEST, "supportedVersions": list(SUPPORTED)}


def _add(request: Request, made: Attachments) -> dict[str, Any]:
    config, attachment = request.config, request.attachment
    link = link_name(f"{config.network}/{attachment.container}/{attachment.interface}", 0)
    with _container(request.netns) as ns:
        with made.locked():
            if made.get(attachment) is not None:
                who = f"{attachment.interface} of container {attachment.container}"
                raise CniError(Code.OURS, f"{who} is in {config.network} already")
            offer = _own_address(config, made) if config.subnet else None
            own = str(offer.ips[0].address.ip) if offer else ""
            made.keep(Made(attachment.container, attachment.interface, link, own))
        try:
            offer = offer or parse(_ipam(request, Command.ADD))
            result = _connect(request, ns, link, offer)
            if config.masquerade:
                addresses = [ip.address for ip in offer.ips if isinstance(ip.address, IPv4Interface)]
                chain = interface.masquerade_chain(config.network, attachment.container)
                with made.locked():
                    made.keep(Made(attachment.container, attachment.interface, link, own, chain))
                interface.masquerade(config.network, attachment.container, addresses)
        except BaseException:
            with suppress(CniError):
                _give_back(request)
            _remove(request, made)
            raise
    return render(result, config.version)


def _connect(request: Request, ns: Namespace, link: str, offer: Result) -> Result:
    config = request.config
    addresses = [ip for ip in offer.ips if isinstance(ip.address, IPv4Interface)]
    if len(addresses) != 1 or len(offer.ips) != 1:
        listed = ", ".join(str(ip.address) for ip in offer.ips) or "none"
        raise CniError(Code.OURS, f"one IPv4 address is needed, and ipam gave {listed}")
    given = addresses[0]
    assert isinstance(given.address, IPv4Interface)
    way = given.gateway or str(gateway(given.address.network).ip)
    bridged = config.attach is Attach.BRIDGE
    length = given.address.network.prefixlen if bridged else 32
    plan = Plan(
        netns=ns.name,
        link=link,
        address=IPv4Interface((given.address.ip, length)),
        gateway=IPv4Interface(f"{way}/{length}"),
        bridge=0,
        mtu=config.mtu or interface.default_mtu(),
        uplink=request.attachment.interface,
        routes=tuple(_routes(offer)),
    )
    interfaces = interface.add(plan, ns, config.bridge if bridged else "")
    ip = Ip(plan.address, way, len(interfaces) - 1)
    return Result(interfaces, (ip,), offer.routes, config.dns or offer.dns)


def _routes(offer: Result) -> list[tuple[IPv4Network, Any]]:
    try:
        return [
            (IPv4Network(route.target), ip_address(route.gateway) if route.gateway else None)
            for route in offer.routes
        ]
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIG, f"routes: {error}") from None


def _delete(request: Request, made: Attachments) -> None:
    """Fine for whatever is gone, and without the container's namespace."""
    _give_back(request)
    _remove(request, made)


def _give_back(request: Request) -> None:
    if not request.config.subnet:
        _ipam(request, Command.DEL)


def _remove(request: Request, made: Attachments) -> None:
    with made.locked():
        known = made.get(request.attachment)
    if known is None:
        return
    interface.remove(known.link)
    if known.masquerade:
        interface.stop_masquerading(known.masquerade)
    with made.locked():
        made.forget(request.attachment)


def _check(request: Request, made: Attachments) -> None:
    previous = request.config.previous
    assert previous is not None
    with made.locked():
        known = made.get(request.attachment)
    if known is None:
        raise CniError(Code.UNKNOWN_CONTAINER, f"container {request.attachment.container} has not been added")
    with _container(request.netns) as ns:
        if wrong := interface.differences(previous, ns, request.attachment.interface):
            raise CniError(Code.OURS, "the network of the container is not as it was made", "; ".join(wrong))
    if not request.config.subnet:
        _ipam(request, Command.CHECK)


def _collect(request: Request, made: Attachments) -> None:
    """Remove what is not listed as valid."""
    with made.locked():
        stale = [item for item in made.all() if item.attachment not in request.config.valid]
    failed: list[CniError] = []
    for item in stale:
        try:
            _delete(replace(request, command=Command.DEL, attachment=item.attachment), made)
        except CniError as error:
            failed.append(error)
    if not request.config.subnet and _ipam_knows(request, GC_SINCE):
        _ipam(request, Command.GC)
    if failed:
        raise CniError(Code.OURS, "not everything could be removed", "; ".join(map(str, failed)))


def _status(request: Request, made: Attachments) -> None:
    if not request.config.subnet:
        delegate.find(str(request.config.ipam["type"]), request.path)
        if _ipam_knows(request, GC_SINCE):
            _ipam(request, Command.STATUS)
        return
    with made.locked():
        try:
            _own_address(request.config, made)
        except PoolExhausted as error:
            raise CniError(Code.LIMITED_CONNECTIVITY, str(error)) from error


def _own_address(config: Config, made: Attachments) -> Result:
    """The next free address of the plug-in's own subnet. The caller holds the lock."""
    assert config.subnet is not None
    taken = {IPv4Address(item.address) for item in made.all() if item.address}
    address = next_address(config.subnet, taken, made.last)
    routes = config.ipam.get("routes") or [{"dst": _ANYWHERE}]
    ip = Ip(IPv4Interface((address, config.subnet.prefixlen)), str(gateway(config.subnet).ip))
    return Result((), (ip,), tuple(Route(str(item["dst"]), str(item.get("gw") or "")) for item in routes))


def _ipam(request: Request, command: Command) -> Any:
    """Have the plug-in for addresses do its part."""
    call = Call(command, request.attachment, request.netns, request.path, request.arguments)
    return delegate.ask(str(request.config.ipam["type"]), call, request.config.raw)


def _ipam_knows(request: Request, version: str) -> bool:
    kind = str(request.config.ipam["type"])
    call = Call(Command.VERSION, request.attachment, "", request.path)
    told = delegate.ask(kind, call, {"cniVersion": request.config.version})
    known = told.get("supportedVersions") if isinstance(told, Mapping) else None
    return any(at_least(str(each), version) for each in known or ())


def _container(path: str) -> Namespace:
    """The container's namespace, which must not be the plug-in's own."""
    ns = netns.open_path(path)
    if ns.inode == HOST.inode:
        ns.close()
        raise CniError(
            Code.INVALID_ENVIRONMENT, "plugin's netns and netns from CNI_NETNS should not be the same", path
        )
    return ns
