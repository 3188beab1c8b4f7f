"""Which ConfigMaps and Secrets a pod needs, and what a reference to them yields. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.errors import Object


class ConfigError(Exception):
    """A container cannot be configured; the text is what kubelet says (`configmap "x" not found`)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One ConfigMap or Secret by kind word (`configmap`, `secret`) and name."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class TokenWish:
    """A ServiceAccount token a volume asks for. `audience` "" = the API server; `seconds` it should be good."""

    audience: str
    seconds: int


def token_wish(source: Mapping[str, Any]) -> TokenWish:
    """What a projected `serviceAccountToken` asks for."""
    return TokenWish(source.get("audience") or "", int(source.get("expirationSeconds") or 3600))


@dataclass(slots=True)
class Sources:
    """The objects of one namespace that were fetched; a missing one is None."""

    namespace: str
    objects: dict[Reference, Object | None] = field(default_factory=dict)

    def data(self, reference: Reference, optional: bool, *, binary: bool = True) -> Mapping[str, bytes]:
        """All keys of an object, those of a ConfigMap's binaryData only for files (`binary`).

        Raises ConfigError when it is missing and not optional.
        """
        found = self.objects.get(reference)
        if found is None:
            if optional:
                return {}
            raise ConfigError(f'{reference.kind} "{reference.name}" not found')
        if reference.kind == "secret":
            return {key: _decoded(value) for key, value in (found.get("data") or {}).items()}
        plain = {key: str(value).encode() for key, value in (found.get("data") or {}).items()}
        if not binary:
            return plain
        return plain | {key: _decoded(value) for key, value in (found.get("binaryData") or {}).items()}

    def value(self, reference: Reference, key: str, optional: bool, *, binary: bool = True) -> bytes | None:
        """One key. Raises ConfigError when object or key is missing and not optional."""
        data = self.data(reference, optional, binary=binary)
        if key in data:
            return data[key]
        if optional:
            return None
        kind = "ConfigMap" if reference.kind == "configmap" else "Secret"
        raise ConfigError(f"couldn't find key {key} in {kind} {self.namespace}/{reference.name}")


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def environment_references(container: Object) -> set[Reference]:
    """What a container's env and envFrom name."""
    found = set()
    for source in container.get("envFrom") or ():
        found |= set(_of(source.get("configMapRef"), source.get("secretRef")))
    for variable in container.get("env") or ():
        origin = variable.get("valueFrom") or {}
        found |= set(_of(origin.get("configMapKeyRef"), origin.get("secretKeyRef")))
    return found


def volume_references(volume: Object) -> set[Reference]:
    """What a volume's sources name."""
    found = set()
    if volume.get("configMap"):
        found.add(Reference("configmap", volume["configMap"].get("name", "")))
    if volume.get("secret"):
        found.add(Reference("secret", volume["secret"].get("secretName", "")))
    for source in (volume.get("projected") or {}).get("sources") or ():
        found |= set(_of(source.get("configMap"), source.get("secret")))
    return found


def _of(config_map: Mapping[str, Any] | None, secret: Mapping[str, Any] | None) -> Iterator[Reference]:
    if config_map:
        yield Reference("configmap", str(config_map.get("name", "")))
    if secret:
        yield Reference("secret", str(secret.get("name", "")))
