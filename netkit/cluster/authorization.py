"""Asks a cluster's API server who may do what, and why. Called by `netkit auth`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from netkit.cluster.access import admin_client
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import Profile

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SECONDS = 10.0
_CERTIFIED = {"kubernetes-admin": ("system:masters",)}


@dataclass(frozen=True, slots=True)
class Action:
    """What is asked about. `resource` as people write it (`deploy`, `deployments.apps`, `pods/log`, `/healthz`)."""

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""
    subresource: str = ""
    field_selector: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The action as the API server knows it; `known` is False for a resource it does not serve."""

    query: tuple[tuple[str, str], ...]
    text: str
    known: bool


def explain(profile: str, user: str, groups: list[str], action: Action) -> dict[str, Any]:
    """The server's explanation, with `action` in words. Raises ClusterError, StatusError."""
    named = [("user", user), *(("group", group) for group in groups_of(user, groups))]
    return asyncio.run(_ask(profile, "/debug/authorization/explain", named, action))


def who_can(profile: str, action: Action) -> dict[str, Any]:
    """Everybody who may. Raises ClusterError, StatusError."""
    return asyncio.run(_ask(profile, "/debug/authorization/who-can", [], action))


def groups_of(user: str, given: list[str]) -> list[str]:
    """The groups authentication adds by itself, those in the certificates `netkit up` made, and those `given`."""
    if user == "system:anonymous":
        own = ["system:unauthenticated"]
    else:
        own = [*_CERTIFIED.get(user, ()), "system:authenticated"]
        parts = user.split(":")
        if user.startswith("system:serviceaccount:") and len(parts) == 4:
            own = ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}", *own]
        elif user.startswith("system:node:"):
            own = ["system:nodes", *own]
    return list(dict.fromkeys([*given, *own]))


async def _ask(profile: str, path: str, query: list[tuple[str, str]], action: Action) -> dict[str, Any]:
    client = admin_client(Profile(profile), Profile(profile).facts().server)
    try:
        async with asyncio.timeout(_SECONDS):
            resolved = await _resolve(client, action)
            response = await client.raw("GET", path, [*query, *resolved.query])
    except (TimeoutError, ConnectionFailed) as error:
        raise ClusterError(
            f"the API server of cluster {profile} does not answer: {error}",
            "netkit status says what is wrong",
        ) from error
    finally:
        await client.close()
    answer: dict[str, Any] = orjson.loads(response.body)
    return {"action": resolved.text, "known": resolved.known, **answer}


async def _resolve(client: Client, action: Action) -> Resolved:
    if action.resource.startswith("/"):
        query = (("verb", action.verb), ("path", action.resource))
        return Resolved(query, f"{action.verb} {action.resource}", True)
    resource, _, subresource = action.resource.partition("/")
    subresource = action.subresource or subresource
    plural, group, namespaced, known = await _look_up(client, resource)
    namespace = action.namespace if namespaced else ""
    parts = (
        ("verb", action.verb),
        ("resource", plural),
        ("apiGroup", group),
        ("name", action.name),
        ("namespace", namespace),
        ("subresource", subresource),
        ("fieldSelector", action.field_selector),
    )
    named = f"{plural}.{group}" if group else plural
    text = f"{action.verb} {named}{'/' + subresource if subresource else ''}"
    text += f' "{action.name}"' if action.name else ""
    text += f" in namespace {namespace}" if namespace else " at the cluster scope" if not namespaced else ""
    text += " in all namespaces" if namespaced and not namespace else ""
    return Resolved(tuple(part for part in parts if part[1]), text, known)


async def _look_up(client: Client, word: str) -> tuple[str, str, bool, bool]:
    """Plural, group and whether it is namespaced; what the server does not serve is taken as it is written."""
    word, _, wanted_group = word.lower().partition(".")
    if word == "*":
        return word, wanted_group, True, True
    for root in ("/api", "/apis"):
        response = await client.raw("GET", root, headers={"accept": _DISCOVERY})
        for group in orjson.loads(response.body).get("items", ()):
            name = group["metadata"].get("name", "")
            if wanted_group and not (name == wanted_group or name.startswith(f"{wanted_group}.")):
                continue
            for version in group["versions"]:
                for entry in version["resources"]:
                    names = (
                        entry["resource"],
                        entry.get("singularResource", ""),
                        *entry.get("shortNames", ()),
                    )
                    if word in names:
                        return entry["resource"], name, entry["scope"] == "Namespaced", True
    return word, wanted_group, True, False
