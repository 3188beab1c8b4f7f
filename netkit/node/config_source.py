"""Fetches the ConfigMaps, Secrets and tokens a pod refers to. Talks to the API; keeps answers for a short
while.

Used by the pod workers, shared by all pods of a node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from controlplane.client.client import Client
from controlplane.errors import NotFound, Object, StatusError
from controlplane.meta import timestamps
from controlplane.resources.catalog import CONFIG_MAP, SECRET, SERVICE_ACCOUNT
from netkit.node.podspec.references import ConfigError, Reference, Sources

_FRESH_SECONDS = 2.0


class ConfigSource:
    """Objects by namespace and reference, at most two seconds old."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._objects: dict[tuple[str, Reference], tuple[float, Object | None]] = {}

    async def fetch(self, namespace: str, references: Iterable[Reference]) -> Sources:
        """All of them; those that do not exist are None. Raises StatusError or ConnectionFailed."""
        sources = Sources(namespace)
        for reference in references:
            sources.objects[reference] = await self._one(namespace, reference)
        return sources

    async def token(self, pod: Object, audience: str, seconds: int) -> tuple[str, float]:
        """A token of the pod's account, bound to the pod, and when it ends (seconds since the epoch).

        Raises ConfigError when the API server refuses it.
        """
        metadata = pod["metadata"]
        request: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        account = pod["spec"].get("serviceAccountName") or "default"
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNT, request, metadata["namespace"], name=account, subresource="token"
            )
        except StatusError as error:
            raise ConfigError(f"failed to fetch token: {error}") from error
        status = answer["status"]
        return status["token"], timestamps.parse(status["expirationTimestamp"]).timestamp()

    async def _one(self, namespace: str, reference: Reference) -> Object | None:
        key = (namespace, reference)
        now = time.monotonic()
        known = self._objects.get(key)
        if known is not None and now - known[0] < _FRESH_SECONDS:
            return known[1]
        kind = CONFIG_MAP if reference.kind == "configmap" else SECRET
        try:
            found = await self._client.get(kind, reference.name, namespace)
        except NotFound:
            # It may be made any moment (a new namespace's `kube-root-ca.crt`), so this is not remembered.
            return None
        if len(self._objects) > 1000:
            self._objects.clear()
        self._objects[key] = (now, found)
        return found
