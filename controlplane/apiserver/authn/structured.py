"""An AuthenticationConfiguration file: several issuers of tokens, and who may stay anonymous. Pure but for reading.

Claims and their prefixes are understood; CEL expressions are refused by name, since ignoring one would let people in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controlplane.apiserver.authn.oidc import SIGNING_ALGORITHMS, ClaimMapping, IssuerRules

_VERSIONS = (
    "apiserver.config.k8s.io/v1alpha1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1",
)


@dataclass(frozen=True, slots=True)
class ConfiguredIssuer:
    """`authority` is the PEM text that verifies the issuer's server, "" = the system's authorities."""

    rules: IssuerRules
    discovery_url: str
    authority: str


@dataclass(frozen=True, slots=True)
class Configured:
    """What the file says. `anonymous` None = nothing."""

    issuers: tuple[ConfiguredIssuer, ...] = ()
    anonymous: bool | None = None
    anonymous_paths: tuple[str, ...] = ()


def load(path: Path) -> Configured:
    """Raises ValueError with the path of the field at fault, OSError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _parse(_mapping(document, ""))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse(document: Mapping[str, Any]) -> Configured:
    _known(document, "", ("apiVersion", "kind", "jwt", "anonymous"))
    if document.get("apiVersion") not in _VERSIONS or document.get("kind") != "AuthenticationConfiguration":
        raise ValueError("expected an AuthenticationConfiguration of apiserver.config.k8s.io/v1beta1")
    issuers = []
    for index, entry in enumerate(_list(document.get("jwt"), "jwt")):
        issuers.append(_issuer(_mapping(entry, f"jwt[{index}]"), f"jwt[{index}]"))
    urls = [issuer.rules.url for issuer in issuers]
    for index, url in enumerate(urls):
        if url in urls[:index]:
            raise ValueError(f'jwt[{index}].issuer.url: Duplicate value: "{url}"')
    anonymous = document.get("anonymous")
    if anonymous is None:
        return Configured(tuple(issuers))
    anonymous = _mapping(anonymous, "anonymous")
    _known(anonymous, "anonymous", ("enabled", "conditions"))
    conditions = _list(anonymous.get("conditions"), "anonymous.conditions")
    paths = [
        _text(_mapping(entry, "anonymous.conditions"), "path", "anonymous.conditions") for entry in conditions
    ]
    if paths and anonymous.get("enabled") is not True:
        raise ValueError("anonymous.conditions: enabled should be set to true when conditions are defined")
    return Configured(tuple(issuers), anonymous.get("enabled") is True, tuple(paths))


def _issuer(entry: Mapping[str, Any], at: str) -> ConfiguredIssuer:
    _known(entry, at, ("issuer", "claimValidationRules", "claimMappings"), ("userValidationRules",))
    issuer = _mapping(entry.get("issuer"), f"{at}.issuer")
    _known(
        issuer,
        f"{at}.issuer",
        ("url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy"),
    )
    url = _https(_text(issuer, "url", f"{at}.issuer"), f"{at}.issuer.url")
    audiences = tuple(str(audience) for audience in _list(issuer.get("audiences"), f"{at}.issuer.audiences"))
    if not audiences:
        raise ValueError(
            f"{at}.issuer.audiences: Required value: at least one {at}.issuer.audiences is required"
        )
    if len(audiences) > 1 and issuer.get("audienceMatchPolicy") != "MatchAny":
        raise ValueError(
            f"{at}.issuer.audienceMatchPolicy: audienceMatchPolicy must be MatchAny for multiple audiences"
        )
    required = {}
    for rule in _list(entry.get("claimValidationRules"), f"{at}.claimValidationRules"):
        where = f"{at}.claimValidationRules"
        found = _mapping(rule, where)
        _known(found, where, ("claim", "requiredValue"), ("expression", "message"))
        required[_text(found, "claim", where)] = str(found.get("requiredValue") or "")
    mappings = _mapping(entry.get("claimMappings"), f"{at}.claimMappings")
    _known(mappings, f"{at}.claimMappings", ("username", "groups", "uid"), ("extra",))
    username = _claim(mappings.get("username"), f"{at}.claimMappings.username")
    if not username.claim:
        raise ValueError(f"{at}.claimMappings.username: Required value: claim or expression is required")
    uid = _mapping(mappings.get("uid") or {}, f"{at}.claimMappings.uid")
    _known(uid, f"{at}.claimMappings.uid", ("claim",), ("expression",))
    discovery = issuer.get("discoveryURL") or url.rstrip("/") + "/.well-known/openid-configuration"
    rules = IssuerRules(
        url=url,
        audiences=audiences,
        username=username,
        groups=_claim(mappings.get("groups"), f"{at}.claimMappings.groups"),
        uid_claim=str(uid.get("claim") or ""),
        required_claims=required,
        signing_algorithms=SIGNING_ALGORITHMS,
    )
    discovery = _https(str(discovery), f"{at}.issuer.discoveryURL")
    return ConfiguredIssuer(rules, discovery, str(issuer.get("certificateAuthority") or ""))


def _claim(value: object, at: str) -> ClaimMapping:
    found = _mapping(value or {}, at)
    _known(found, at, ("claim", "prefix"), ("expression",))
    if found.get("claim") and found.get("prefix") is None:
        raise ValueError(f"{at}.prefix: Required value: prefix is required when claim is set. It can be set to an "
                         "empty string to disable prefixing")  # fmt: skip
    return ClaimMapping(claim=str(found.get("claim") or ""), prefix=str(found.get("prefix") or ""))


def _https(url: str, at: str) -> str:
    if not url.startswith("https://"):
        raise ValueError(f'{at}: Invalid value: "{url}": URL scheme must be https')
    return url


def _mapping(value: object, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{at or 'the file'}: expected a mapping")
    return value


def _list(value: object, at: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{at}: expected a list")
    return value


def _text(entry: Mapping[str, Any], key: str, at: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{at}.{key}: Required value")
    return value


def _known(entry: Mapping[str, Any], at: str, names: tuple[str, ...], refused: tuple[str, ...] = ()) -> None:
    for name in entry:
        where = f"{at}.{name}" if at else str(name)
        if name in refused and entry[name]:
            raise ValueError(f"{where}: CEL expressions and extra attributes are not supported here")
        if name not in names and name not in refused:
            raise ValueError(f"{where}: unknown field")
