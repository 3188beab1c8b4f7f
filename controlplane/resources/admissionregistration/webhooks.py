"""MutatingWebhookConfiguration and ValidatingWebhookConfiguration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1035_label, dns1123_subdomain
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.admissionregistration.expressions import Compiler
from controlplane.resources.admissionregistration.matching import (
    default_rules,
    fully_qualified,
    validate_conditions,
    validate_rules,
)
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.fieldpath import string_list
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

REVIEW_VERSIONS = ("v1", "v1beta1")
_FORM = "; desired format: https://host[/path]"


def _default(configuration: Object) -> None:
    for webhook in configuration.get("webhooks") or ():
        if not webhook.get("failurePolicy"):
            webhook["failurePolicy"] = "Fail"
        if not webhook.get("matchPolicy"):
            webhook["matchPolicy"] = "Equivalent"
        for field in ("namespaceSelector", "objectSelector"):
            if webhook.get(field) is None:
                webhook[field] = {}
        if webhook.get("timeoutSeconds") is None:
            webhook["timeoutSeconds"] = 10
        service = (webhook.get("clientConfig") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443
        default_rules(webhook.get("rules"))


def _default_mutating(configuration: Object) -> None:
    _default(configuration)
    for webhook in configuration.get("webhooks") or ():
        if not webhook.get("reinvocationPolicy"):
            webhook["reinvocationPolicy"] = "Never"


def _validate(configuration: Object) -> Sequence[Cause]:
    field = Field.root(configuration)
    seen: set[str] = set()
    for webhook in field["webhooks"]:
        _validate_webhook(webhook)
        _validate_review_versions(webhook["admissionReviewVersions"])
        title = webhook["name"]
        if title.text and title.text in seen:
            title.duplicate()
        seen.add(title.text)
    return field.causes


def _validate_webhook(webhook: Field) -> None:
    fully_qualified(webhook["name"])
    validate_rules(webhook["rules"])
    webhook["failurePolicy"].one_of("Fail", "Ignore")
    webhook["matchPolicy"].one_of("Equivalent", "Exact")
    effects = webhook["sideEffects"]
    if effects.value is None:
        effects.required("must specify one of None, NoneOnDryRun")
    else:
        effects.one_of("None", "NoneOnDryRun")
    timeout = webhook["timeoutSeconds"]
    if isinstance(timeout.value, int) and not 1 <= timeout.value <= 30:
        timeout.invalid("the timeout value must be between 1 and 30 seconds")
    for selector in ("namespaceSelector", "objectSelector"):
        validate_label_selector(webhook[selector])
    webhook["reinvocationPolicy"].one_of("IfNeeded", "Never")
    validate_client_config(webhook["clientConfig"])
    validate_conditions(webhook["matchConditions"], Compiler())


def validate_client_config(config: Field) -> None:
    """Where a webhook is: exactly one of `url` and `service`."""
    url, service = config["url"], config["service"]
    if (url.value is None) == (service.value is None):
        config.of(None).required("exactly one of url or service is required")
    elif service.value is None:
        _validate_url(url)
    else:
        _validate_service(service)


def _validate_url(url: Field) -> None:
    try:
        parts = urlsplit(url.text)
        _ = parts.port
    except ValueError as fault:
        url.of(None).required(f"url must be a valid URL: {fault}{_FORM}")
        return
    if parts.scheme != "https":
        url.of(parts.scheme).invalid(f"'https' is the only allowed URL scheme{_FORM}")
    if not parts.netloc:
        url.of("").invalid(f"host must be specified{_FORM}")
    if "@" in parts.netloc:
        url.of(parts.netloc.rpartition("@")[0]).invalid("user information is not permitted in the URL")
    if parts.fragment:
        url.of(parts.fragment).invalid("fragments are not permitted in the URL")
    if parts.query:
        url.of(parts.query).invalid("query parameters are not permitted in the URL")


def _validate_service(service: Field) -> None:
    service["name"].required("service name is required")
    service["namespace"].required("service namespace is required")
    port = service["port"]
    if isinstance(port.value, int) and not 1 <= port.value <= 65535:
        port.invalid("port is not valid: must be between 1 and 65535, inclusive")
    path = service["path"]
    text = path.text
    if text in ("", "/"):
        return
    if text == "//":
        path.invalid("segment[0] may not be empty")
        return
    if not text.startswith("/"):
        path.invalid("must start with a '/'")
    for at, segment in enumerate(text.removeprefix("/").removesuffix("/").split("/")):
        if not segment:
            path.invalid(f"segment[{at}] may not be empty")
            continue
        for message in dns1123_subdomain(segment):
            path.invalid(f"segment[{at}]: {message}")


def _validate_review_versions(versions: Field) -> None:
    known = ", ".join(REVIEW_VERSIONS)
    if not len(versions):
        versions.of(None).required(f"must specify one of {known}")
        return
    seen: set[str] = set()
    for version in versions:
        if version.text in seen:
            version.invalid("duplicate version")
            continue
        seen.add(version.text)
        for message in dns1035_label(version.text):
            version.invalid(message)
    if not seen & set(REVIEW_VERSIONS):
        versions.of(string_list(versions.value)).invalid(f"must include at least one of {known}")


def _row(configuration: Object, now: datetime) -> Sequence[object]:
    return name(configuration), len(configuration.get("webhooks") or ()), age(configuration, now)


def _kind(kind: str, default: Callable[[Object], None]) -> Kind:
    return Kind(
        group="admissionregistration.k8s.io",
        version="v1",
        kind=kind,
        plural=f"{kind.lower()}s",
        singular=kind.lower(),
        namespaced=False,
        categories=("api-extensions",),
        columns=(
            NAME,
            Column(
                "Webhooks",
                type="integer",
                description="Webhooks indicates the number of webhooks registered in this configuration.",
            ),
            AGE,
        ),
        row=_row,
        default=default,
        validate=_validate,
        generation=True,
        unconditional_update=False,
        fields=selectable_fields(),
    )


MUTATING_WEBHOOK_CONFIGURATION = _kind("MutatingWebhookConfiguration", _default_mutating)
VALIDATING_WEBHOOK_CONFIGURATION = _kind("ValidatingWebhookConfiguration", _default)
