"""log, exec, attach, portforward and proxy: which backend a request goes to, and under which path there.

The texts for pods without a node or containers that do not exist are upstream's
(`pkg/registry/core/pod/strategy.go`, v1.32). Passing the bytes on is `streams.py`.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlencode

from controlplane.apiserver.admission.plugin import Operation
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.apiserver.streams import (
    Backend,
    Dial,
    is_upgrade,
    kubelet_answer,
    kubelet_backend,
    proxied_answer,
    upgrade_answer,
)
from controlplane.errors import BadRequest, NotFound, Object, ServiceUnavailable, invalid
from controlplane.meta.objects import dig
from controlplane.resources.catalog import ENDPOINTS, NODE, POD, SERVICE
from controlplane.resources.rules import Field

_LOG_FLAGS = ("follow", "previous", "timestamps")
_LOG_NUMBERS = ("sinceSeconds", "tailLines", "limitBytes")
_STREAM_FLAGS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Connector:
    """The handlers that leave the API server. `kubelet_tls` presents the API server's own client certificate."""

    dial: Dial
    kubelet_tls: ssl.SSLContext | None

    async def log(self, call: Call) -> ApiResponse:
        _check_log_options(call)
        pod = await _pod(call)
        container = _container(pod, call.query.text("container"))
        node = dig(pod, "spec", "nodeName", default="")
        if not node:
            return typed(200, b"", TEXT)
        query = [(name, "true") for name in _LOG_FLAGS if call.query.flag(name)]
        for name in _LOG_NUMBERS:
            number = call.query.integer(name)
            if number is not None:
                query.append((name, str(number)))
        if call.query.text("sinceTime"):
            query.append(("sinceTime", call.query.text("sinceTime")))
        target = _target(("containerLogs", call.namespace, call.name, container), query)
        backend = await self._kubelet(call, node)
        return await kubelet_answer(self.dial, backend, call.request, target, content_type=TEXT)

    async def execute(self, call: Call) -> ApiResponse:
        return await self._stream(call, "exec", call.query.all("command"))

    async def attach(self, call: Call) -> ApiResponse:
        return await self._stream(call, "attach", ())

    async def _stream(self, call: Call, verb: str, command: Sequence[str]) -> ApiResponse:
        pod = await _pod(call)
        container = _container(pod, call.query.text("container"))
        await _admit(call, "PodExecOptions" if verb == "exec" else "PodAttachOptions")
        node = _host(pod)
        if verb == "exec" and not command:
            raise BadRequest("you must specify a command to execute")
        query = [(name, "1") for asked, name in _STREAM_FLAGS if call.query.flag(asked)]
        if not any(name != "tty" for name, _ in query):
            raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
        _needs_upgrade(call)
        query += [("command", word) for word in command]
        target = _target((verb, call.namespace, call.name, container), query)
        return await upgrade_answer(self.dial, await self._kubelet(call, node), call.request, target)

    async def port_forward(self, call: Call) -> ApiResponse:
        pod = await _pod(call)
        await _admit(call, "PodPortForwardOptions")
        node = _host(pod)
        _needs_upgrade(call)
        ports = ",".join(call.query.all("ports"))
        target = _target(("portForward", call.namespace, call.name), [("port", ports)] if ports else [])
        return await upgrade_answer(self.dial, await self._kubelet(call, node), call.request, target)

    async def proxy_pod(self, call: Call) -> ApiResponse:
        scheme, name, port = _split_name(call.name)
        pod = (await call.registry.get(call.kind, call.namespace, name)).object
        await _admit(call, "PodProxyOptions")
        address = dig(pod, "status", "podIP", default="")
        if not address:
            raise ServiceUnavailable(f"address not allowed: pod {name} has no IP yet")
        _check_proxyable(address)
        number = int(port) if port.isdigit() else _container_port(pod, port)
        return await self._proxied(call, Backend(address, number, _unverified(scheme), name))

    async def proxy_service(self, call: Call) -> ApiResponse:
        scheme, name, port = _split_name(call.name)
        service = (await call.registry.get(SERVICE, call.namespace, name)).object
        await _admit(call, "ServiceProxyOptions")
        port_name = _service_port_name(service, port)
        endpoints = (await call.registry.get(ENDPOINTS, call.namespace, name)).object
        address, number = await _endpoint(call, endpoints, port_name, name)
        _check_proxyable(address)
        return await self._proxied(call, Backend(address, number, _unverified(scheme), name))

    async def proxy_node(self, call: Call) -> ApiResponse:
        """A node's proxy is its kubelet."""
        _, name, _ = _split_name(call.name)
        await _admit(call, "NodeProxyOptions")
        backend = await self._kubelet(call, name)
        _check_proxyable(backend.address)
        return await self._proxied(call, backend)

    async def _proxied(self, call: Call, backend: Backend) -> ApiResponse:
        prefix = call.kind.path(call.namespace, quote(call.name, safe=":")) + "/proxy"
        if not call.info.rest and not call.request.path.endswith("/"):
            return ApiResponse(301, {"Location": prefix + "/"})
        target = "/" + "/".join(call.info.rest)
        if call.request.query:
            target += "?" + urlencode(call.request.query)
        return await proxied_answer(self.dial, backend, call.request, target, prefix)

    async def _kubelet(self, call: Call, node_name: str) -> Backend:
        node = (await call.registry.get(NODE, "", node_name)).object
        return kubelet_backend(node, self.kubelet_tls)


async def _admit(call: Call, kind: str) -> None:
    """Ask admission whether the connection may be made; it is shown the request's options as an object."""
    options: Object = {"kind": kind, "apiVersion": "v1"}
    query = call.query
    if kind.endswith("ProxyOptions"):
        options["path"] = "/" + "/".join(call.info.rest)
    elif kind == "PodPortForwardOptions":
        options["ports"] = [int(port) for port in query.all("ports") if port.isdigit()]
    else:
        options.update({name: True for name in ("stdin", "stdout", "stderr", "tty") if query.flag(name)})
        if query.text("container"):
            options["container"] = query.text("container")
        if kind == "PodExecOptions":
            options["command"] = list(query.all("command"))
    await call.registry.admit(
        Operation.CONNECT, call.kind, call.namespace, _split_name(call.name)[1], call.info.subresource,
        ("", "v1", kind), options, call.request.user, remarks=call.remarks,
    )  # fmt: skip


async def _pod(call: Call) -> Object:
    return (await call.registry.get(call.kind, call.namespace, call.name)).object


def _needs_upgrade(call: Call) -> None:
    if not is_upgrade(call.request.headers):
        raise BadRequest("Upgrade request required")


def _check_log_options(call: Call) -> None:
    """Raises Invalid for what upstream's `ValidatePodLogOptions` refuses."""
    options = Field.root({name: call.query.integer(name) for name in _LOG_NUMBERS})
    options["tailLines"].not_negative()
    options["limitBytes"].positive()
    if call.query.text("stream"):
        options["stream"].forbidden("may not be specified")
    if options["sinceSeconds"].value is not None and call.query.text("sinceTime"):
        options.forbidden("at most one of `sinceTime` or `sinceSeconds` may be specified")
    else:
        options["sinceSeconds"].positive()
    if options.causes:
        raise invalid("PodLogOptions", "", call.name, options.causes)


def _names(pod: Object, field: str) -> list[str]:
    return [str(container["name"]) for container in pod["spec"].get(field) or ()]


def _container(pod: Object, asked: str) -> str:
    """The container's name: the one asked for, or the only one there is. Raises BadRequest in upstream's words."""
    name = pod["metadata"]["name"]
    names = _names(pod, "containers")
    if asked:
        every = names + _names(pod, "initContainers") + _names(pod, "ephemeralContainers")
        if asked not in every:
            raise BadRequest(f"container {asked} is not valid for pod {name}")
        return asked
    if len(names) == 1:
        return names[0]
    text = f"a container name must be specified for pod {name}"
    if names:
        text += f", choose one of: {_go_list(names)}"
        initial = _names(pod, "initContainers")
        if initial:
            text += f" or one of the init containers: {_go_list(initial)}"
    raise BadRequest(text)


def _go_list(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _host(pod: Object) -> str:
    node: str = dig(pod, "spec", "nodeName", default="")
    if not node:
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
    return node


def _target(segments: Sequence[str], query: Sequence[tuple[str, str]]) -> str:
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    return f"{path}?{urlencode(query)}" if query else path


def _split_name(text: str) -> tuple[str, str, str]:
    """`[scheme:]name[:port]` -> scheme, name, port; `https:web:` is a scheme and a name."""
    parts = text.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("http", "https"):
        return parts[0], parts[1], parts[2]
    raise BadRequest(f'invalid request "{text}"')


def _unverified(scheme: str) -> ssl.SSLContext | None:
    """TLS to a workload: as upstream, whatever certificate it shows is taken."""
    if scheme != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _container_port(pod: Object, name: str) -> int:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if not name or port.get("name") == name:
                return int(port["containerPort"])
    if name:
        raise ServiceUnavailable(f'no port "{name}" in pod {pod["metadata"]["name"]}')
    return 80


def _service_port_name(service: Object, port: str) -> str:
    """The name of the asked port (a name, a number, or nothing for the only or unnamed one)."""
    ports: list[Object] = dig(service, "spec", "ports", default=())
    for entry in ports:
        if port in (entry.get("name", ""), str(entry["port"])) or (not port and len(ports) == 1):
            return str(entry.get("name", ""))
    raise ServiceUnavailable(f'no service port "{port}" found for service "{service["metadata"]["name"]}"')


async def _endpoint(call: Call, endpoints: Object, port_name: str, service: str) -> tuple[str, int]:
    """A random ready address that has the port and is really a pod's of this namespace. Raises ServiceUnavailable.

    Who may write Endpoints must not lead the API server to any other address, as upstream has it.
    """
    found = [
        (address, int(port["port"]))
        for subset in endpoints.get("subsets") or ()
        for port in subset.get("ports") or ()
        if port.get("name", "") == port_name
        for address in subset.get("addresses") or ()
    ]
    random.shuffle(found)
    for address, number in found:
        if await _is_pods(call, address):
            return str(address["ip"]), number
    raise ServiceUnavailable(f'no endpoints available for service "{service}"')


async def _is_pods(call: Call, address: Object) -> bool:
    target = address.get("targetRef") or {}
    if target.get("kind") != "Pod" or target.get("namespace") != call.namespace:
        return False
    try:
        pod = (await call.registry.get(POD, call.namespace, str(target.get("name", "")))).object
    except NotFound:
        return False
    status = pod.get("status") or {}
    known = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    return address.get("ip") in known


def _check_proxyable(address: str) -> None:
    """Raises BadRequest for all but ordinary addresses: loopback, link-local (metadata services) and the like."""
    try:
        ip = ip_address(address)
    except ValueError:
        raise BadRequest("address not allowed") from None
    ip = getattr(ip, "ipv4_mapped", None) or ip
    special = ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
    if special or str(ip) == "255.255.255.255":
        raise BadRequest("address not allowed")
