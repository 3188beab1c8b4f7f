"""ABAC: a file with one policy per line, read once at the start, as `--authorization-policy-file` takes it.

Both forms are read: `abac.authorization.kubernetes.io/v1beta1`, and the older one without a kind. Called by the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from controlplane.apiserver.authz.attributes import (
    AUTHENTICATED,
    Attributes,
    Decision,
    RulesAnswer,
    Verdict,
)
from controlplane.apiserver.authz.rules import ALL, path_matches
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo

API_VERSION = "abac.authorization.kubernetes.io/v1beta1"
_READ_ONLY = frozenset({"get", "list", "watch"})
_FIELDS = ("user", "group", "apiGroup", "namespace", "resource", "nonResourcePath")
_OLD_FIELDS = ("user", "group", "namespace", "resource")
_ALLOW = Decision(Verdict.ALLOW)
_NO_MATCH = Decision(Verdict.NO_OPINION, "No policy matched.")


class PolicyFileError(ValueError):
    """A line of the file that is no policy; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One line. `*` stands for anything; an empty namespace is the cluster scope."""

    user: str = ""
    group: str = ""
    readonly: bool = False
    api_group: str = ""
    namespace: str = ""
    resource: str = ""
    path: str = ""

    def applies_to(self, user: UserInfo) -> bool:
        if self.user and self.user not in (ALL, user.name):
            return False
        if self.group and self.group != ALL and self.group not in user.groups:
            return False
        return bool(self.user or self.group)

    def covers(self, info: RequestInfo) -> bool:
        if self.readonly and info.verb not in _READ_ONLY:
            return False
        if not info.is_resource:
            return bool(self.path) and path_matches(self.path, info.path)
        return (
            self.namespace in (ALL, info.namespace)
            and self.resource in (ALL, info.resource)
            and self.api_group in (ALL, info.group)
        )


class AbacAuthorizer:
    """Raises PolicyFileError or OSError when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._policies = tuple(
            _policy(line, f"{path}:{number}")
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if line.strip() and not line.lstrip().startswith("#")
        )

    async def authorize(self, attributes: Attributes) -> Decision:
        for policy in self._policies:
            if policy.applies_to(attributes.user) and policy.covers(attributes.info):
                return _ALLOW
        return _NO_MATCH

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        resource, paths = [], []
        for policy in self._policies:
            if not policy.applies_to(user):
                continue
            verbs = sorted(_READ_ONLY) if policy.readonly else [ALL]
            if policy.resource and policy.namespace in (ALL, namespace):
                resource.append(
                    {"verbs": verbs, "apiGroups": [policy.api_group], "resources": [policy.resource]}
                )
            if policy.path:
                paths.append({"verbs": verbs, "nonResourceURLs": [policy.path]})
        return RulesAnswer(resource, paths)


def _policy(line: str, where: str) -> Policy:
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise PolicyFileError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise PolicyFileError(f"{where}: expected an object")
    if "apiVersion" not in found and "kind" not in found:
        return _old_policy(_checked(found, _OLD_FIELDS, where))
    if found.get("apiVersion") != API_VERSION or found.get("kind") != "Policy":
        raise PolicyFileError(f"{where}: expected apiVersion {API_VERSION} and kind Policy")
    spec = _checked(found.get("spec"), _FIELDS, where)
    user, group = _authenticated(spec["user"], spec["group"])
    return Policy(
        user,
        group,
        spec["readonly"],
        spec["apiGroup"],
        spec["namespace"],
        spec["resource"],
        spec["nonResourcePath"],
    )


def _old_policy(spec: dict[str, Any]) -> Policy:
    """Without a version everything that is left out means anything."""
    user, group = _authenticated(spec["user"], spec["group"])
    everything = not spec["namespace"] and not spec["resource"]
    return Policy(
        user,
        group or ("" if user else AUTHENTICATED),
        spec["readonly"],
        ALL,
        spec["namespace"] or ALL,
        spec["resource"] or ALL,
        ALL if everything else "",
    )


def _authenticated(user: str, group: str) -> tuple[str, str]:
    """`*` means whoever is authenticated."""
    return ("", AUTHENTICATED) if ALL in (user, group) else (user, group)


def _checked(spec: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(spec, dict):
        raise PolicyFileError(f"{where}: expected an object as spec")
    result: dict[str, Any] = {}
    for key in keys:
        value = spec.get(key, "")
        if not isinstance(value, str):
            raise PolicyFileError(f"{where}: {key} must be text")
        result[key] = value
    readonly = spec.get("readonly", False)
    if not isinstance(readonly, bool):
        raise PolicyFileError(f"{where}: readonly must be true or false")
    unknown = set(spec) - {*keys, "readonly"}
    if unknown:
        raise PolicyFileError(f"{where}: unknown field {sorted(unknown)[0]}")
    return {**result, "readonly": readonly}
