"""Levels and versions, and the policy that a namespace's labels ask for. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from controlplane.errors import Cause
from controlplane.resources import fieldpath

PREFIX = "pod-security.kubernetes.io/"
LATEST = 10**6
"""The number of the version `latest`."""
_VERSION = re.compile(r"^v1\.([0-9]|[1-9][0-9]*)$")


class Level(IntEnum):
    """Ordered by strictness."""

    PRIVILEGED = 0
    BASELINE = 1
    RESTRICTED = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class LevelVersion:
    """`minor` is the x of v1.x, or LATEST."""

    level: Level = Level.PRIVILEGED
    minor: int = LATEST

    def __str__(self) -> str:
        version = "latest" if self.minor == LATEST else f"v1.{self.minor}"
        return f"{self.level.word}:{version}"


@dataclass(frozen=True, slots=True)
class Policy:
    enforce: LevelVersion = LevelVersion()
    audit: LevelVersion = LevelVersion()
    warn: LevelVersion = LevelVersion()

    @property
    def is_privileged(self) -> bool:
        return not (self.enforce.level or self.audit.level or self.warn.level)


def level_version(level: str, version: str = "latest") -> LevelVersion:
    """Raises ValueError for what is neither a level nor a version."""
    found = next((each for each in Level if each.word == level), None)
    if found is None:
        raise ValueError(f"{level!r} is not one of {', '.join(each.word for each in Level)}")
    match = _VERSION.match(version)
    if match is None and version != "latest":
        raise ValueError(f"{version!r} is neither latest nor v1.x")
    return LevelVersion(found, int(match[1]) if match else LATEST)


def policy_of(labels: Mapping[str, str] | None, defaults: Policy) -> tuple[Policy, list[Cause]]:
    """What the labels ask for, and what is wrong with them.

    A bad level enforces `restricted`, and neither audits nor warns; a bad version is `latest`.
    """
    if not labels:
        return defaults, []
    causes: list[Cause] = []
    enforce = _mode(labels, "enforce", defaults.enforce, Level.RESTRICTED, causes)
    audit = _mode(labels, "audit", defaults.audit, Level.PRIVILEGED, causes)
    warn = _mode(labels, "warn", defaults.warn, Level.PRIVILEGED, causes)
    return Policy(enforce, audit, warn), causes


def _mode(
    labels: Mapping[str, str], mode: str, default: LevelVersion, fallback: Level, causes: list[Cause]
) -> LevelVersion:
    found = default
    label = PREFIX + mode
    if label in labels:
        level = next((level for level in Level if level.word == labels[label]), None)
        if level is None:
            words = ", ".join(each.word for each in Level)
            causes.append(_invalid(label, labels[label], f"must be one of {words}"))
        found = replace(found, level=fallback if level is None else level)
    label += "-version"
    if label in labels:
        match = _VERSION.match(labels[label])
        if match is None and labels[label] != "latest":
            causes.append(_invalid(label, labels[label], 'must be "latest" or "v1.x"'))
        found = replace(found, minor=int(match[1]) if match else LATEST)
    return found


def _invalid(label: str, value: str, why: str) -> Cause:
    return fieldpath.invalid(f"metadata.labels[{label}]", value, why)
