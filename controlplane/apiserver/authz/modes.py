"""The chain of authorizers from the settings. Called by `server.py`; refuses what cannot be, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from controlplane.apiserver.authz.abac import AbacAuthorizer, PolicyFileError
from controlplane.apiserver.authz.attributes import Authorizer
from controlplane.apiserver.authz.chain import AlwaysAllow, AlwaysDeny, Chain
from controlplane.apiserver.authz.follower import CacheSource
from controlplane.apiserver.authz.node import NodeAuthorizer
from controlplane.apiserver.authz.node_graph import NodeCaches, NodeGraph
from controlplane.apiserver.authz.rbac import RbacCaches, RbacPolicy
from controlplane.apiserver.authz.webhook import WebhookAuthorizer, WebhookSettings
from controlplane.apiserver.registry.registry import Registry
from controlplane.client.kubeconfig import KubeconfigError
from controlplane.resources.catalog import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    PERSISTENT_VOLUME,
    POD,
    ROLE,
    ROLE_BINDING,
    VOLUME_ATTACHMENT,
)
from controlplane.resources.kind import Kind


class Mode(StrEnum):
    """The names `--authorization-mode` knows."""

    ALWAYS_ALLOW = "AlwaysAllow"
    ALWAYS_DENY = "AlwaysDeny"
    ABAC = "ABAC"
    WEBHOOK = "Webhook"
    RBAC = "RBAC"
    NODE = "Node"


class AuthorizationError(ValueError):
    """Settings that make no chain; the text says which and why."""


@dataclass(frozen=True, slots=True)
class AuthorizationSettings:
    """`modes` in the order they are asked. `abac_policy_file` belongs to ABAC, `webhook` to Webhook."""

    modes: tuple[Mode, ...] = (Mode.NODE, Mode.RBAC)
    abac_policy_file: Path | None = None
    webhook: WebhookSettings | None = None

    def check(self) -> None:
        """Raises AuthorizationError for modes that do not fit together."""
        if not self.modes:
            raise AuthorizationError("at least one authorization mode must be given")
        for mode in self.modes:
            if self.modes.count(mode) > 1:
                raise AuthorizationError(f"authorization mode {mode} is given twice")
        for mode, value, what in (
            (Mode.ABAC, self.abac_policy_file, "policy file"),
            (Mode.WEBHOOK, self.webhook, "webhook kubeconfig"),
        ):
            if (mode in self.modes) and value is None:
                raise AuthorizationError(f"authorization mode {mode} needs a {what}")
            if (mode not in self.modes) and value is not None:
                raise AuthorizationError(f"a {what} is given, but authorization mode {mode} is not")


@dataclass(frozen=True, slots=True)
class Authorization:
    """The chain and the parts others need. It knows no objects before `follow`."""

    chain: Chain
    rbac: RbacPolicy = field(default_factory=RbacPolicy)
    graph: NodeGraph = field(default_factory=NodeGraph)

    @classmethod
    def of(cls, settings: AuthorizationSettings) -> Authorization:
        """Raises AuthorizationError; nothing is opened but the files the settings name."""
        settings.check()
        rbac, graph = RbacPolicy(), NodeGraph()
        makers: Mapping[Mode, Callable[[], Authorizer]] = {
            Mode.ALWAYS_ALLOW: AlwaysAllow,
            Mode.ALWAYS_DENY: AlwaysDeny,
            Mode.ABAC: lambda: _abac(settings.abac_policy_file),
            Mode.WEBHOOK: lambda: _webhook(settings.webhook),
            Mode.RBAC: lambda: rbac,
            Mode.NODE: lambda: NodeAuthorizer(graph),
        }
        return cls(Chain([(str(mode), makers[mode]()) for mode in settings.modes]), rbac, graph)

    async def follow(self, registry: Registry) -> None:
        """Decide by the objects of a registry that has been started. Raises StoreError."""

        async def caches(*kinds: Kind) -> list[CacheSource]:
            for kind in kinds:
                await registry.cache(kind)
            return [partial(registry.present_cache, kind) for kind in kinds]

        self.rbac.follow(RbacCaches(*await caches(ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING)))
        self.graph.follow(NodeCaches(*await caches(POD, PERSISTENT_VOLUME, VOLUME_ATTACHMENT)))

    async def close(self) -> None:
        """End what authorizers hold open."""
        for _, member in self.chain.members:
            if isinstance(member, WebhookAuthorizer):
                await member.close()


def _abac(path: Path | None) -> Authorizer:
    assert path is not None
    try:
        return AbacAuthorizer(path)
    except PolicyFileError as error:
        raise AuthorizationError(f"ABAC policy file {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AuthorizationError(f"ABAC policy file {path}: {error}") from error


def _webhook(settings: WebhookSettings | None) -> Authorizer:
    assert settings is not None
    try:
        return WebhookAuthorizer(settings)
    except (KubeconfigError, OSError, ValueError) as error:
        raise AuthorizationError(f"authorization webhook: {error}") from error
