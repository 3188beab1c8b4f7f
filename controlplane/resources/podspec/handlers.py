"""Rules for probes and lifecycle hooks: exactly one handler, sensible numbers. Pure."""

from __future__ import annotations

import re

from controlplane.meta.names import regex_error
from controlplane.resources.rules import Field

_HEADER = "[-A-Za-z0-9]+"
_HEADER_MESSAGE = regex_error(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, ("X-Header-Name",)
)
_NOT_NEGATIVE = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)


def http_header_name(text: str) -> list[str]:
    return [] if re.fullmatch(_HEADER, text) else [_HEADER_MESSAGE]


def validate_probe(probe: Field) -> None:
    if probe.value is None:
        return
    validate_handler(probe, "exec", "httpGet", "tcpSocket", "grpc")
    for name in _NOT_NEGATIVE:
        probe[name].not_negative()
    probe["terminationGracePeriodSeconds"].positive()


def validate_liveness(probe: Field) -> None:
    """Liveness and startup probes succeed at once."""
    validate_probe(probe)
    threshold = probe["successThreshold"]
    if threshold.value is not None and threshold.value != 1:
        threshold.invalid("must be 1")


def validate_readiness(probe: Field) -> None:
    validate_probe(probe)
    seconds = probe["terminationGracePeriodSeconds"]
    if seconds.value is not None:
        seconds.invalid("must not be set for readinessProbes")


def validate_lifecycle(lifecycle: Field) -> None:
    for name in ("postStart", "preStop"):
        if lifecycle[name].value is not None:
            validate_handler(lifecycle[name], "exec", "httpGet", "tcpSocket", "sleep")


def validate_handler(handler: Field, *kinds: str) -> None:
    """Exactly one of `kinds` must be given."""
    given = [name for name in kinds if handler[name].value is not None]
    if not given:
        handler.of(None).required("must specify a handler type")
    for name in given[1:]:
        handler[name].forbidden("may not specify more than 1 handler type")
    if given:
        _RULES[given[0]](handler[given[0]])


def _exec(action: Field) -> None:
    action["command"].required()


def _http_get(action: Field) -> None:
    action["path"].required()
    action["port"].port_number_or_name()
    action["scheme"].one_of("HTTP", "HTTPS")
    for header in action["httpHeaders"]:
        header["name"].required().check(http_header_name)


def _tcp_socket(action: Field) -> None:
    action["port"].port_number_or_name()


def _grpc(action: Field) -> None:
    action["port"].port_number()


def _sleep(action: Field) -> None:
    action["seconds"].positive()


_RULES = {"exec": _exec, "httpGet": _http_get, "tcpSocket": _tcp_socket, "grpc": _grpc, "sleep": _sleep}
