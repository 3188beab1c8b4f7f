"""What builtin containers answer: from a request and the pod's facts to a response. Pure.

Each behaviour imitates the images the catalogue maps to it closely enough for the scripts and lessons
that read their output. Served by `http_server` and `udp_server`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from netkit.node.runtime.http_parser import Request

_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html"


@dataclass(frozen=True, slots=True)
class Facts:
    """The pod a server stands in."""

    hostname: str
    pod: str
    namespace: str
    node: str
    addresses: tuple[str, ...]
    text: str = ""

    @property
    def address(self) -> str:
        return self.addresses[0] if self.addresses else ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One side of a connection."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Response:
    """`server` is the Server header ("" = none)."""

    status: int
    body: bytes
    content_type: str = _TEXT
    server: str = ""


Answer = Callable[[Request, Facts, Endpoint, Endpoint], Response]
"""From (request, facts, client, own endpoint) to the response."""

_NGINX_SERVER = "nginx/1.27.5"
_WELCOME = b"""<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
<style>
html { color-scheme: light dark; }
body { width: 35em; margin: 0 auto;
font-family: Tahoma, Verdana, Arial, sans-serif; }
</style>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, the nginx web server is successfully installed and
working. Further configuration is required.</p>

<p>For online documentation and support please refer to
<a href="http://nginx.org/">nginx.org</a>.<br/>
Commercial support is available at
<a href="http://nginx.com/">nginx.com</a>.</p>

<p><em>Thank you for using nginx.</em></p>
</body>
</html>
"""


def nginx_error(status: int, reason: str) -> Response:
    """The error page nginx makes itself."""
    title = f"{status} {reason}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        f"<hr><center>{_NGINX_SERVER}</center>\r\n</body>\r\n</html>\r\n"
    )
    return Response(status, page.encode(), _HTML, _NGINX_SERVER)


def _nginx(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    if request.path in ("/", "/index.html"):
        if request.method not in ("GET", "HEAD"):
            return nginx_error(405, "Not Allowed")
        return Response(200, _WELCOME, _HTML, _NGINX_SERVER)
    return nginx_error(404, "Not Found")


def _httpd(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    server = "Apache/2.4.63 (Unix)"
    if request.path in ("/", "/index.html"):
        return Response(200, b"<html><body><h1>It works!</h1></body></html>\n", _HTML, server)
    page = (
        '<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">\n<html><head>\n<title>404 Not Found</title>\n'
        "</head><body>\n<h1>Not Found</h1>\n<p>The requested URL was not found on this server.</p>\n"
        "</body></html>\n"
    )
    return Response(404, page.encode(), "text/html; charset=iso-8859-1", server)


def _hostname(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    return Response(200, f"{facts.hostname}\n".encode())


def _hostname_page(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    page = (
        '<!DOCTYPE html>\n<meta charset="utf-8" />\n<div class="form-layout">\n\t<blockquote>\n'
        f"\t<p>Hello,  {facts.hostname}</p>\t</blockquote>\n</div>\n"
    )
    return Response(200, page.encode(), "text/html; charset=utf-8")


def _echo(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    """As registry.k8s.io/echoserver:1.10 writes it."""
    host = request.header("host", f"{own.address}:{own.port}")
    headers = sorted((name.lower(), value) for name, value in request.headers)
    lines = [
        "", "", f"Hostname: {facts.hostname}", "", "Pod Information:",
        f"\tnode name:\t{facts.node}", f"\tpod name:\t{facts.pod}", f"\tpod namespace:\t{facts.namespace}",
        f"\tpod IP:\t{facts.address}", "", "Server values:", "\tserver_version=netkit: builtin echo", "",
        "Request Information:", f"\tclient_address={client.address}", f"\tclient_port={client.port}",
        f"\tserver_address={own.address}", f"\tserver_port={own.port}",
        f"\tmethod={request.method}", f"\treal path={request.target}", f"\tquery={request.query}",
        f"\trequest_version={request.version}", "\trequest_scheme=http",
        f"\trequest_uri=http://{host}{request.target}", f"\trequest_line={request.line}", "",
        "Request Headers:", *(f"\t{name}={value}" for name, value in headers), "", "Request Body:",
        request.body.decode("utf-8", "replace") or "\t-no body in request-", "", "",
    ]  # fmt: skip
    return Response(200, "\n".join(lines).encode(), "text/plain")


def _echo_json(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    """As ealen/echo-server writes it."""
    query = {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
    answer = {
        "host": {"hostname": request.header("host").partition(":")[0], "ip": client.address, "ips": []},
        "http": {
            "method": request.method,
            "baseUrl": "",
            "originalUrl": request.target,
            "protocol": "http",
            "version": request.version,
        },
        "request": {
            "params": {"0": request.path},
            "query": query,
            "cookies": {},
            "body": request.body.decode("utf-8", "replace") if request.body else {},
            "headers": {name.lower(): value for name, value in request.headers},
        },
        "environment": {
            "HOSTNAME": facts.hostname,
            "POD_NAMESPACE": facts.namespace,
            "POD_IP": facts.address,
            "NODE_NAME": facts.node,
        },
        "os": {"hostname": facts.hostname},
    }
    return Response(200, json.dumps(answer).encode(), "application/json; charset=utf-8")


def _whoami(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    """As traefik/whoami writes it."""
    lines = [f"Hostname: {facts.hostname}", "IP: 127.0.0.1"]
    lines += [f"IP: {address}" for address in facts.addresses]
    lines += [f"RemoteAddr: {_joined(client)}", request.line]
    lines += [f"{name}: {value}" for name, value in request.headers]
    return Response(200, ("\n".join(lines) + "\n\n").encode())


def _request_served(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    """As jmalloc/echo-server writes it."""
    lines = [f"Request served by {facts.hostname}", "", request.line, ""]
    lines += [*(f"{name}: {value}" for name, value in request.headers), ""]
    return Response(200, ("\n".join(lines) + "\n").encode() + request.body, "text/plain")


def _http_echo(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    if request.path == "/health":
        return Response(200, b'{"status":"ok"}\n', "application/json")
    return Response(200, f"{facts.text or 'hello-world'}\n".encode())


def _hello_app(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    version = facts.text or "1.0.0"
    return Response(200, f"Hello, world!\nVersion: {version}\nHostname: {facts.hostname}\n".encode())


def _hello_plain(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    """As nginxdemos/hello:plain-text writes it."""
    date = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    text = (
        f"Server address: {_joined(own)}\nServer name: {facts.hostname}\nDate: {date}\n"
        f"URI: {request.target}\nRequest ID: {time.time_ns():032x}\n"
    )
    return Response(200, text.encode(), "text/plain", _NGINX_SERVER)


def _netexec(request: Request, facts: Facts, client: Endpoint, own: Endpoint) -> Response:
    """As `agnhost netexec` answers."""
    query = parse_qs(request.query, keep_blank_values=True)
    match request.path.lower():
        case "/hostname":
            text = facts.hostname
        case "/clientip":
            text = _joined(client)
        case "/echo":
            text = query.get("msg", [""])[-1]
        case "/header":
            text = request.header(query.get("key", [""])[-1].lower())
        case "/healthz":
            text = ""
        case "/":
            text = f"NOW: {time.strftime('%Y-%m-%d %H:%M:%S +0000 UTC', time.gmtime())}"
        case _:
            return Response(404, b"404 page not found\n")
    return Response(200, text.encode())


def _joined(endpoint: Endpoint) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}"


ANSWERS: Mapping[str, Answer] = {
    "nginx": _nginx,
    "httpd": _httpd,
    "hostname": _hostname,
    "hostname-page": _hostname_page,
    "echo": _echo,
    "echo-json": _echo_json,
    "whoami": _whoami,
    "request-served": _request_served,
    "http-echo": _http_echo,
    "hello-app": _hello_app,
    "hello-plain": _hello_plain,
    "netexec": _netexec,
}
"""Behaviours that serve HTTP, by name."""

BEHAVIOURS = frozenset((*ANSWERS, "pause"))
"""All behaviours; `pause` listens nowhere."""


def answer_datagram(behaviour: str, data: bytes, facts: Facts, client: Endpoint) -> bytes:
    """What a UDP port answers: `hostname` behaviours their name, netexec its commands, all others an echo."""
    if behaviour in ("hostname", "hostname-page"):
        return f"{facts.hostname}\n".encode()
    if behaviour == "netexec":
        command, _, rest = data.decode("utf-8", "replace").strip().partition(" ")
        match command.lower():
            case "hostname":
                return facts.hostname.encode()
            case "clientip":
                return _joined(client).encode()
            case "echo":
                return rest.encode()
    return data
