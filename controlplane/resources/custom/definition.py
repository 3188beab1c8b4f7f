"""CustomResourceDefinition: defaults, and what a definition must be (apiextensions v0.32).

Upstream moves what all versions have alike to the top of the definition before it validates, so faults of a definition
with one version are told below `spec.validation`, not `spec.versions[0].schema`. Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from controlplane.errors import Cause, Object
from controlplane.meta import conditions
from controlplane.meta.names import dns1035_label, dns1123_subdomain
from controlplane.meta.objects import dig
from controlplane.meta.timestamps import now
from controlplane.resources import fieldpath
from controlplane.resources.cells import NAME
from controlplane.resources.fieldpath import forbidden, invalid, not_supported, required
from controlplane.resources.kind import Checked, Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

ESTABLISHED, NAMES_ACCEPTED, TERMINATING = "Established", "NamesAccepted", "Terminating"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
APPROVAL = "api-approved.kubernetes.io"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_MAX_SELECTABLE = 8
_LIFTED = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")


def _default(definition: Object) -> None:
    spec = definition.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    if kind and not names.get("singular"):
        names["singular"] = kind.lower()
    if kind and not names.get("listKind"):
        names["listKind"] = f"{kind}List"
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    service = dig(conversion, "webhook", "clientConfig", "service")
    if service is not None:
        service.setdefault("port", 443)
    for version in spec.get("versions") or ():
        version.setdefault("served", False)
        version.setdefault("storage", False)
    if not spec.get("preserveUnknownFields"):
        spec.pop("preserveUnknownFields", None)


def _prepare_create(definition: Object) -> None:
    definition["status"] = {
        "conditions": [],
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": [each.get("name") or "" for each in _versions(definition) if each.get("storage")],
    }


def _prepare_update(new: Object, old: Object) -> None:
    """What is the storage version from now on has been stored in."""
    status = dict(new.get("status") or {})
    stored = list(status.get("storedVersions") or ())
    storage = [each.get("name") or "" for each in _versions(new) if each.get("storage")]
    extra = [each for each in storage if each not in stored]
    if extra:
        new["status"] = {**status, "storedVersions": [*stored, *extra]}


def prepare_delete(definition: Object) -> None:
    """The first deletion: instances go before the definition does."""
    metadata = definition["metadata"]
    finalizers = list(metadata.get("finalizers") or ())
    if FINALIZER not in finalizers:
        metadata["finalizers"] = [*finalizers, FINALIZER]
    status = dict(definition.get("status") or {})
    text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    status["conditions"] = conditions.with_condition(
        status.get("conditions"), condition(TERMINATING, "True", "InstanceDeletionPending", text)
    )
    definition["status"] = status


def condition(type_: str, status: str, reason: str, message: str) -> Object:
    return {
        "type": type_,
        "status": status,
        "lastTransitionTime": now(),
        "reason": reason,
        "message": message,
    }


def _versions(definition: Object) -> Sequence[Object]:
    found: Sequence[Object] = dig(definition, "spec", "versions", default=())
    return found


def _validate(definition: Object) -> Sequence[Cause]:
    return [
        *_name(definition),
        *_spec(definition),
        *_names(definition.get("status") or {}, "acceptedNames", "status.acceptedNames"),
        *_stored_versions(definition),
        *_approval(definition),
    ]


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    before = old.get("spec") or {}
    spec = Field.root(new)["spec"]
    was = Field.root(old)["spec"]
    if conditions.status_of(old, ESTABLISHED) == "True":
        spec["scope"].unchanged(was["scope"])
        spec["names"]["kind"].unchanged(was["names"]["kind"])
    spec["group"].unchanged(was["group"])
    spec["names"]["plural"].unchanged(was["names"]["plural"])
    if (new.get("spec") or {}).get("preserveUnknownFields") and not before.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        spec["preserveUnknownFields"].invalid(text)
    return spec.causes


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    return list(_names(new.get("status") or {}, "acceptedNames", "status.acceptedNames"))


def _name(definition: Object) -> Iterator[Cause]:
    spec, name = definition.get("spec") or {}, definition["metadata"].get("name") or ""
    if name and name != f"{dig(spec, 'names', 'plural', default='')}.{spec.get('group') or ''}":
        yield invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')


def _approval(definition: Object) -> Iterator[Cause]:
    group = dig(definition, "spec", "group", default="")
    if not any(group == each or group.endswith(f".{each}") for each in ("k8s.io", "kubernetes.io")):
        return
    value = (definition["metadata"].get("annotations") or {}).get(APPROVAL) or ""
    path = f"metadata.annotations[{APPROVAL}]"
    if not value:
        text = (
            f'protected groups must have approval annotation "{APPROVAL}", see '
            "https://github.com/kubernetes/enhancements/pull/1111"
        )
        yield required(path, text)
    elif not value.startswith("unapproved"):
        parts = urlsplit(value)
        if not parts.scheme or not parts.netloc:
            text = (
                f'protected groups must have approval annotation "{APPROVAL}" with either a URL or a reason starting '
                'with "unapproved", see https://github.com/kubernetes/enhancements/pull/1111'
            )
            yield invalid(path, value, text)


def _stored_versions(definition: Object) -> Iterator[Cause]:
    path = "status.storedVersions"
    stored = list(dig(definition, "status", "storedVersions", default=()))
    if not stored:
        yield invalid(path, fieldpath.string_list(None), "must have at least one stored version")
        return
    present = {each.get("name") for each in _versions(definition)}
    for each in _versions(definition):
        if each.get("storage") and each.get("name") not in stored:
            yield invalid(
                path, fieldpath.string_list(stored), f"must have the storage version {each.get('name', '')}"
            )
    for at, version in enumerate(stored):
        if version not in present:
            text = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {version} and removes "
                f"{version} from status.storedVersions"
            )
            yield invalid(f"{path}[{at}]", version, text)


def _spec(definition: Object) -> Iterator[Cause]:
    spec = definition.get("spec") or {}
    yield from _group(spec.get("group") or "")
    scope = spec.get("scope") or ""
    if not scope:
        yield required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield not_supported("spec.scope", scope, ("Cluster", "Namespaced"))
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield invalid("spec.preserveUnknownFields", True, text)
    versions = _versions(definition)
    for at, version in enumerate(versions):
        if dig(version, "schema", "openAPIV3Schema") is None:
            yield required(f"spec.versions[{at}].schema.openAPIV3Schema", "schemas are required")
    lifted = _alike(versions)
    for at, version in enumerate(versions):
        yield from _version(version, f"spec.versions[{at}]", lifted)
    yield from _version_names(versions)
    for name in ("plural", "singular", "kind", "listKind"):
        if not dig(spec, "names", name):
            yield required(f"spec.names.{name}")
    yield from _names(spec, "names", "spec.names")
    if versions:
        yield from _lifted(versions[0], lifted)
    yield from _conversion(spec.get("conversion") or {}, "spec.conversion")


def _group(group: str) -> Iterator[Cause]:
    if not group:
        yield required("spec.group")
        return
    messages = dns1123_subdomain(group)
    if messages:
        yield invalid("spec.group", group, ",".join(messages))
    elif "." not in group:
        yield invalid("spec.group", group, "should be a domain with at least one dot")


def _alike(versions: Sequence[Object]) -> frozenset[str]:
    """What all versions have and have alike."""
    if not versions:
        return frozenset()
    first = versions[0]
    return frozenset(
        name
        for name in _LIFTED
        if first.get(name) and all(version.get(name) == first[name] for version in versions)
    )


def _version_names(versions: Sequence[Object]) -> Iterator[Cause]:
    names = [version.get("name") or "" for version in versions]
    shown = fieldpath.string_list(names)
    if len(set(names)) != len(names):
        yield invalid("spec.versions", shown, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid("spec.versions", shown, "must have exactly one version marked as storage version")


def _version(version: Object, path: str, lifted: frozenset[str]) -> Iterator[Cause]:
    messages = dns1035_label(version.get("name") or "")
    if messages:
        yield invalid(f"{path}.name", version.get("name") or "", ",".join(messages))
    for message in _deprecation(version):
        yield invalid(f"{path}.deprecationWarning", version.get("deprecationWarning"), message)
    status = dig(version, "subresources", "status") is not None
    schema = dig(version, "schema", "openAPIV3Schema")
    if "schema" not in lifted and schema is not None:
        yield from _schema(schema, f"{path}.schema.openAPIV3Schema", status=status)
    if "subresources" not in lifted:
        yield from _subresources(version.get("subresources") or {}, f"{path}.subresources")
    if "additionalPrinterColumns" not in lifted:
        for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
            yield from _column(column, f"{path}.additionalPrinterColumns[{at}]")
    if "selectableFields" not in lifted:
        yield from _selectable(version.get("selectableFields") or (), schema, f"{path}.selectableFields")


def _lifted(version: Object, lifted: frozenset[str]) -> Iterator[Cause]:
    schema = dig(version, "schema", "openAPIV3Schema")
    status = dig(version, "subresources", "status") is not None
    if "schema" in lifted and schema is not None:
        yield from _schema(schema, "spec.validation.openAPIV3Schema", status=status)
    if "subresources" in lifted:
        yield from _subresources(version["subresources"], "spec.subresources")
    if "additionalPrinterColumns" in lifted:
        for at, column in enumerate(version["additionalPrinterColumns"]):
            yield from _column(column, f"spec.additionalPrinterColumns[{at}]")
    if "selectableFields" in lifted:
        yield from _selectable(version["selectableFields"], schema, "spec.selectableFields")


def _deprecation(version: Object) -> Iterator[str]:
    text = version.get("deprecationWarning")
    if text is None:
        return
    if not version.get("deprecated"):
        yield "can only be set for deprecated versions"
        return
    if len(text.encode()) > 256:
        yield "must be <= 256 characters long"
    if not text:
        yield "must not be an empty string"
    for at, letter in enumerate(text):
        if not letter.isprintable():
            yield f"must only contain printable UTF-8 characters; non-printable character found at index {at}"
            break


def _names(holder: Object, name: str, path: str) -> Iterator[Cause]:
    names = holder.get(name) or {}
    for key in ("plural", "singular"):
        if names.get(key) and (messages := dns1035_label(names[key])):
            yield invalid(f"{path}.{key}", names[key], ",".join(messages))
    for key in ("kind", "listKind"):
        if names.get(key) and (messages := dns1035_label(names[key].lower())):
            text = "may have mixed case, but should otherwise match: " + ",".join(messages)
            yield invalid(f"{path}.{key}", names[key], text)
    for at, short in enumerate(names.get("shortNames") or ()):
        if messages := dns1035_label(short):
            yield invalid(f"{path}.shortNames[{at}]", short, ",".join(messages))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        yield invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same")
    for at, category in enumerate(names.get("categories") or ()):
        if messages := dns1035_label(category):
            yield invalid(f"{path}.categories[{at}]", category, ",".join(messages))


def _column(column: Object, path: str) -> Iterator[Cause]:
    if not column.get("name"):
        yield required(f"{path}.name")
    kind, choices = column.get("type") or "", ",".join(_COLUMN_TYPES)
    if not kind:
        yield required(f"{path}.type", f"must be one of {choices}")
    elif kind not in _COLUMN_TYPES:
        yield invalid(f"{path}.type", kind, f"must be one of {choices}")
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        yield invalid(f"{path}.format", column["format"], f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not column.get("jsonPath"):
        yield required(f"{path}.JSONPath")
    else:
        yield from _simple_path(column["jsonPath"], f"{path}.JSONPath")


def _simple_path(text: str, path: str) -> Iterator[Cause]:
    if text[0] != ".":
        yield invalid(path, text, "must be a simple json path starting with .")


def _selectable(fields: Sequence[Object], schema: Object | None, path: str) -> Iterator[Cause]:
    from controlplane.resources.custom.schema_rules import schema_at  # see `_schema`

    seen: set[str] = set()
    for at, each in enumerate(fields):
        where, text = f"{path}[{at}].jsonPath", each.get("jsonPath") or ""
        if not text:
            yield required(where)
            continue
        found = schema_at(schema, text, arrays=False) if schema is not None else None
        if found is None and text != ".metadata" and not text.startswith(".metadata."):
            yield invalid(where, text, "is an invalid path: does not refer to a valid field")
            continue
        if text == ".metadata" or text.startswith(".metadata."):
            yield invalid(where, text, "must not point to fields in metadata")
        if (found or {}).get("type") not in ("string", "boolean", "integer"):
            detail = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with "
                "formats are allowed."
            )
            yield invalid(where, text, detail)
        if text in seen:
            yield fieldpath.duplicate(where, text)
        seen.add(text)
    if len(seen) > _MAX_SELECTABLE:
        yield fieldpath.too_many(path, len(seen), _MAX_SELECTABLE)


def _subresources(subresources: Object, path: str) -> Iterator[Cause]:
    scale = subresources.get("scale")
    if scale is None:
        return
    for name, prefixes, words in (
        ("specReplicasPath", (".spec.",), "should be a json path under .spec"),
        ("statusReplicasPath", (".status.",), "should be a json path under .status"),
        ("labelSelectorPath", (".spec.", ".status."), "should be a json path under either .spec or .status"),
    ):
        where, text = f"{path}.scale.{name}", scale.get(name) or ""
        if not text:
            if name != "labelSelectorPath":
                yield required(where)
            continue
        wrong = list(_simple_path(text, where))
        if wrong:
            yield from wrong
        elif not text.startswith(prefixes):
            yield invalid(where, text, words)


def _conversion(conversion: Object, path: str) -> Iterator[Cause]:
    strategy = conversion.get("strategy") or ""
    webhook = conversion.get("webhook")
    client = (webhook or {}).get("clientConfig")
    if not strategy:
        yield required(f"{path}.strategy")
    elif strategy not in ("None", "Webhook"):
        yield not_supported(f"{path}.strategy", strategy, ("None", "Webhook"))
    if strategy != "Webhook":
        text = "should not be set when strategy is not set to Webhook"
        if client is not None:
            yield forbidden(f"{path}.webhookClientConfig", text)
        if (webhook or {}).get("conversionReviewVersions"):
            yield forbidden(f"{path}.conversionReviewVersions", text)
        return
    where = f"{path}.webhookClientConfig"
    if client is None:
        yield required(where, "required when strategy is set to Webhook")
    else:
        yield from client_config(client, where)
    yield from _review_versions((webhook or {}).get("conversionReviewVersions") or (), path)


def _review_versions(versions: Sequence[str], path: str) -> Iterator[Cause]:
    where = f"{path}.conversionReviewVersions"
    if not versions:
        yield required(where)
        return
    seen: set[str] = set()
    for at, version in enumerate(versions):
        if version in seen:
            yield invalid(f"{where}[{at}]", version, "duplicate version")
            continue
        seen.add(version)
        for message in dns1035_label(version):
            yield invalid(f"{where}[{at}]", version, message)
    if not seen & set(_REVIEW_VERSIONS):
        text = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        yield invalid(where, fieldpath.string_list(versions), text)


def client_config(client: Object, path: str) -> Iterator[Cause]:
    """A webhook's clientConfig: exactly one of url and service, and a CA bundle that holds certificates."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from _url(url, f"{path}.url")
    else:
        yield from _service(service or {}, f"{path}.service")
    bundle = client.get("caBundle")
    if bundle:
        yield from _bundle(bundle, f"{path}.caBundle")


def _url(url: str, path: str) -> Iterator[Cause]:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as fault:
        yield required(path, f"url must be a valid URL: {fault}{form}")
        return
    if parts.scheme != "https":
        yield invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not parts.netloc:
        yield invalid(path, parts.netloc, f"host must be specified{form}")
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        yield invalid(path, user, "user information is not permitted in the URL")
    if parts.fragment:
        yield invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield invalid(path, parts.query, "query parameters are not permitted in the URL")


def _service(service: Object, path: str) -> Iterator[Cause]:
    for name in ("name", "namespace"):
        if not service.get(name):
            yield required(f"{path}.{name}", f"service {name} is required")
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        yield invalid(f"{path}.port", port, "port is not valid: must be between 1 and 65535, inclusive")
    text = service.get("path")
    if text is None:
        return
    if not text.startswith("/"):
        yield invalid(f"{path}.path", text, "must start with a '/'")
        return
    for at, segment in enumerate(text[1:].removesuffix("/").split("/") if text != "/" else ()):
        if not segment:
            yield invalid(f"{path}.path", text, f"segment[{at}] may not be empty")
        for message in dns1123_subdomain(segment) if segment else ():
            yield invalid(f"{path}.path", text, f"segment[{at}]: {message}")


def _bundle(bundle: str, path: str) -> Iterator[Cause]:
    try:
        text = base64.b64decode(bundle)
    except (binascii.Error, ValueError):
        text = b""
    if b"-----BEGIN CERTIFICATE-----" not in text:
        yield invalid(
            path,
            fieldpath.Literal(f"[]byte{{{', '.join(f'0x{each:x}' for each in text[:64])}}}"),
            "unable to load root certificates: unable to parse bytes as PEM block",
        )


def _decode(definition: Object) -> Checked:
    from controlplane.resources.custom.decoding import decode_definition  # see `_schema`

    return decode_definition(definition)


def _schema(schema: Object, path: str, *, status: bool) -> Sequence[Cause]:
    # Loaded by the first definition: clusters without any start without it.
    from controlplane.resources.custom.schema_rules import schema_causes

    return schema_causes(schema, path, status=status)


def _row(definition: Object, moment: datetime) -> Sequence[object]:
    return definition["metadata"].get("name", ""), definition["metadata"].get("creationTimestamp")


CUSTOM_RESOURCE_DEFINITION = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    singular="customresourcedefinition",
    namespaced=False,
    storage="apiextensions.k8s.io/customresourcedefinitions",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    decode=_decode,
    columns=(NAME, Column("Created At", type="date", description="When the server created this object.")),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    prepare_delete=prepare_delete,
    validate=_validate,
    validate_update=_validate_update,
    status=True,
    status_metadata=(),
    validate_status=_validate_status,
    generation=True,
    unconditional_update=False,
    fields=selectable_fields(),
)
