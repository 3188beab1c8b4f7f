"""The identities the control plane's own parts work with: one client for each. Made by whoever serves the API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controlplane.client.client import Client


@dataclass(frozen=True, slots=True)
class Clients:
    """`shared` reads everything for the informers all controllers share; `controller(name)` writes as the
    ServiceAccount of that name in kube-system, with the rights of the ClusterRole `system:controller:NAME`.
    `api_server` is for loops that upstream runs inside the API server.
    """

    shared: Client
    scheduler: Client
    api_server: Client
    controller: Callable[[str], Client]

    @classmethod
    def all_as(cls, client: Client) -> Clients:
        """One client for all of it."""
        return cls(client, client, client, lambda name: client)
