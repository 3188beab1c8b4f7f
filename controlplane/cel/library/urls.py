"""url, isURL and the parts of a URL, as Go's net/url parses request URIs."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_plus

from controlplane.cel.functions import Function, member, plain, unwrap, wrap
from controlplane.cel.types import BOOL, STRING, URL, list_of, map_of

_SHAPE = re.compile(r"^(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?]*)(?:\?(.*))?$", re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORT = re.compile(r"^:\d*$")


def _fault(text: str, why: str) -> ValueError:
    return ValueError(f'URL parse error during conversion from string: parse "{text}": {why}')


def _parse(text: str) -> dict[str, str]:
    """The parts of an absolute URI or absolute path. Raises ValueError."""
    if not text:
        raise _fault(text, "empty url")
    if _CONTROL.search(text):
        raise _fault(text, "net/url: invalid control character in URL")
    match = _SHAPE.match(text)
    scheme = match[1] or "" if match else ""
    if match is None or not text[len(scheme) + 1 if scheme else 0 :].startswith("/"):
        raise _fault(text, "invalid URI for request")
    authority, path = match[2] or "", match[3]
    if bad := _BAD_ESCAPE.search(authority + path):
        raise _fault(text, f'invalid URL escape "{(authority + path)[bad.start() : bad.start() + 3]}"')
    if " " in authority:
        raise _fault(text, 'invalid character " " in host name')
    host = authority.rpartition("@")[2]
    hostname, port = _split_host(text, host)
    return {
        "scheme": scheme.lower(),
        "host": host,
        "hostname": hostname,
        "port": port,
        "path": quote(path, safe="/%:@!$&'()*+,;=-._~[]"),
        "query": match[4] or "",
    }


def _split_host(text: str, host: str) -> tuple[str, str]:
    """Name and port. Raises ValueError."""
    name, rest = host, ""
    if host.startswith("["):
        name, closing, rest = host[1:].partition("]")
        if not closing:
            raise _fault(text, "missing ']' in host")
    elif ":" in host:
        name, _, port = host.partition(":")
        rest = f":{port}"
    if rest and not _PORT.match(rest):
        raise _fault(text, f'invalid port "{rest}" after host')
    return name, rest[1:]


def _url(text: str) -> dict[str, object]:
    return wrap(URL, _parse(text))


def _is_url(text: str) -> bool:
    try:
        _parse(text)
    except ValueError:
        return False
    return True


def _part(name: str) -> Function:
    def read(url: object) -> str:
        return str(unwrap(URL, url)[name])

    title = {
        "scheme": "Scheme",
        "host": "Host",
        "hostname": "Hostname",
        "port": "Port",
        "path": "EscapedPath",
    }
    return member(f"get{title[name]}", read, (f"url_get_{name}", (URL,), STRING))


def _query(url: object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in str(unwrap(URL, url)["query"]).split("&"):
        # Go drops pairs with a semicolon or a broken escape.
        if not pair or ";" in pair or _BAD_ESCAPE.search(pair):
            continue
        name, _, value = pair.partition("=")
        found.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    return found


FUNCTIONS: tuple[Function, ...] = (
    plain("url", _url, ("string_to_url", (STRING,), URL)),
    plain("isURL", _is_url, ("is_url_string", (STRING,), BOOL)),
    *(_part(name) for name in ("scheme", "host", "hostname", "port", "path")),
    member("getQuery", _query, ("url_get_query", (URL,), map_of(STRING, list_of(STRING)))),
)
