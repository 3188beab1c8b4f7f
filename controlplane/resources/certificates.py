"""certificates.k8s.io/v1: CertificateSigningRequest, by which somebody asks for a certificate.

Who asks is filled in by the server (`admission.certificates`); who may approve and sign is the authorizer's to say.
Rules and texts are upstream's (`pkg/apis/certificates/validation`, v1.32).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_label, dns1123_subdomain
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age, human_duration, now
from controlplane.resources import fieldpath
from controlplane.resources.cells import AGE, NAME, NONE
from controlplane.resources.kind import Column, Kind, Part, Subresource
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
MIN_SECONDS = 600
_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----\r?\n([^-]*)-----END \1-----")


def decode(text: object) -> bytes:
    """The bytes of a base64 field; empty for what is none."""
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""


def conditions(request: Object, type_: str) -> list[Object]:
    return [entry for entry in dig(request, "status", "conditions", default=()) if entry.get("type") == type_]


def _request_fault(text: object) -> str:
    """Why `spec.request` is no request in PEM, "" when it is one."""
    from cryptography import x509

    pem = decode(text)
    block = _PEM.search(pem)
    if block is None or block.group(1) != b"CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        x509.load_pem_x509_csr(block.group())
    except ValueError as error:
        return f"asn1: {error}"
    return ""


def _certificate_fault(text: object) -> str:
    from cryptography import x509

    blocks = list(_PEM.finditer(decode(text)))
    if not blocks:
        return "must contain at least one CERTIFICATE PEM block"
    for index, block in enumerate(blocks):
        label = block.group(1).decode()
        if label != "CERTIFICATE":
            return f"only CERTIFICATE PEM blocks are allowed, found {label!r}".replace("'", '"')
        try:
            x509.load_pem_x509_certificate(block.group())
        except ValueError as error:
            return f"CERTIFICATE PEM block {index} is invalid: {error}"
    return ""


def _signer_name(field: Field) -> None:
    """`domain/path`."""
    if not field.required().present:
        return
    segments = field.text.split("/")
    if len(segments) != 2:
        field.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'")
        return
    domain, path = segments
    labels = domain.split(".")
    for label in labels:
        for message in dns1123_label(label):
            field.of(domain).invalid(f"validating label {fieldpath.quoted(label)}: {message}")
    if len(labels) < 2:
        field.of(domain).invalid("should be a domain with at least two segments separated by dots")
    for label in path.split("."):
        for message in dns1123_subdomain(label):
            field.of(path).invalid(f"validating label {fieldpath.quoted(label)}: {message}")


def _validate(request: Object) -> Sequence[Cause]:
    field = Field.root(request)
    spec = field["spec"]
    fault = _request_fault(spec["request"].value)
    if fault:
        spec["request"].of(_go_bytes(decode(spec["request"].value))).invalid(fault)
    _usages(spec["usages"])
    if spec["signerName"].value == LEGACY_UNKNOWN:
        spec["signerName"].invalid("the legacy signerName is not allowed via this API version")
    else:
        _signer_name(spec["signerName"])
    seconds = spec["expirationSeconds"]
    if isinstance(seconds.value, int) and seconds.value < MIN_SECONDS:
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)")
    _conditions(field["status"]["conditions"])
    certificate = field["status"]["certificate"]
    fault = _certificate_fault(certificate.value) if certificate.present else ""
    if fault:
        certificate.of(fieldpath.Literal('"<certificate data>"')).invalid(fault)
    return field.causes


def _go_bytes(data: bytes) -> fieldpath.Literal:
    """As Go prints a `[]byte`."""
    return fieldpath.Literal(f"[]byte{{{', '.join(f'0x{byte:x}' for byte in data)}}}")


def _usages(usages: Field) -> None:
    usages.required()
    seen: set[object] = set()
    for usage in usages:
        usage.one_of(*_USAGES)
        if usage.value in seen:
            usage.duplicate()
        seen.add(usage.value)


def _conditions(field: Field) -> None:
    seen: set[str] = set()
    for condition in field:
        kind = condition["type"].required().text
        known = (APPROVED, DENIED, FAILED)
        condition["status"].required().one_of(*(("True",) if kind in known else ("False", "True", "Unknown")))
        if (kind == APPROVED and DENIED in seen) or (kind == DENIED and APPROVED in seen):
            condition["type"].invalid("Approved and Denied conditions are mutually exclusive")
        if kind in seen:
            condition["type"].duplicate()
        seen.add(kind)


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field.causes.extend(_validate(new))
    _keep_conditions(field, old)
    for type_ in (APPROVED, DENIED):
        before, after = conditions(old, type_), conditions(new, type_)
        if len(after) > len(before):
            field["status"]["conditions"].forbidden(f'updates may not add a condition of type "{type_}"')
        elif len(after) == len(before) and after != before:
            field["status"]["conditions"].forbidden(f'updates may not modify a condition of type "{type_}"')
    issued = dig(old, "status", "certificate", default="")
    if issued and dig(new, "status", "certificate", default="") != issued:
        field["status"]["certificate"].forbidden("updates may not modify existing certificate content")
    return field.causes


def _validate_approval(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field.causes.extend(_validate(new))
    _keep_conditions(field, old)
    return field.causes


def _keep_conditions(field: Field, old: Object) -> None:
    for type_ in (APPROVED, DENIED, FAILED):
        if len(conditions(field.value, type_)) < len(conditions(old, type_)):
            field["status"]["conditions"].forbidden(f'updates may not remove a condition of type "{type_}"')


def _prepare_create(request: Object) -> None:
    """Nobody brings a request that is approved already."""
    request["status"] = {}


def _prepare_update(new: Object, old: Object) -> None:
    """A request does not change, but for its metadata."""
    if "spec" in old:
        new["spec"] = old["spec"]
    else:
        new.pop("spec", None)


def _prepare_status(new: Object, old: Object) -> None:
    """As many approvals and denials as before are the same ones as before."""
    status = new["status"] = {**(new.get("status") or {})}
    listed: list[Object] = list(status.get("conditions") or ())
    for type_ in (APPROVED, DENIED):
        places = [index for index, entry in enumerate(listed) if entry.get("type") == type_]
        before = conditions(old, type_)
        if len(places) == len(before):
            for index, entry in zip(places, before, strict=True):
                listed[index] = entry
    _stamp(status, listed, old)


def _take_approval(proposed: Object, old: Object) -> Object:
    """The old request with the proposed conditions."""
    status = {**(old.get("status") or {})}
    listed = list(dig(proposed, "status", "conditions", default=()) or ())
    _stamp(status, listed, old)
    return {**old, "metadata": {**old["metadata"]}, "status": status}


def _stamp(status: Object, listed: Sequence[Object], old: Object) -> None:
    """The conditions with their times, where the client gave none."""
    moment, stamped = now(), []
    for entry in listed:
        same = next((known for known in conditions(old, entry.get("type", ""))), None)
        fresh = {**entry}
        if not fresh.get("lastUpdateTime"):
            fresh["lastUpdateTime"] = moment
        if not fresh.get("lastTransitionTime"):
            kept = same is not None and same.get("status") == fresh.get("status")
            fresh["lastTransitionTime"] = (same or {}).get("lastTransitionTime", moment) if kept else moment
        stamped.append(fresh)
    if stamped:
        status["conditions"] = stamped
    else:
        status.pop("conditions", None)


def _state(request: Object) -> str:
    state = (
        "Denied"
        if conditions(request, DENIED)
        else "Approved"
        if conditions(request, APPROVED)
        else "Pending"
    )
    if conditions(request, FAILED):
        state += ",Failed"
    return f"{state},Issued" if dig(request, "status", "certificate", default="") else state


def _row(request: Object, moment: datetime) -> Sequence[object]:
    seconds = dig(request, "spec", "expirationSeconds", default=None)
    return (
        name(request),
        age(request, moment),
        dig(request, "spec", "signerName", default=""),
        dig(request, "spec", "username", default=""),
        NONE if seconds is None else human_duration(seconds),
        _state(request),
    )


def _anything(text: str) -> Sequence[str]:
    """Names of requests are free, as long as they fit into a path."""
    if text in (".", ".."):
        return (f"may not be '{text}'",)
    return [f"may not contain '{mark}'" for mark in "/%" if mark in text]


CERTIFICATE_SIGNING_REQUEST = Kind(
    group="certificates.k8s.io",
    version="v1",
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    singular="certificatesigningrequest",
    namespaced=False,
    short_names=("csr",),
    columns=(
        NAME,
        AGE,
        Column("SignerName", description="The signer that is asked."),
        Column("Requestor", description="The user who asks."),
        Column("RequestedDuration", description="How long the certificate shall be good."),
        Column("Condition", description="Pending, Approved or Denied; Failed and Issued beside that."),
    ),
    row=_row,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    prepare_status=_prepare_status,
    validate=_validate,
    validate_status=_validate_status,
    status=True,
    subresources=(Subresource("approval", "CertificateSigningRequest", ("get", "patch", "update")),),
    parts={"approval": Part(_take_approval, _validate_approval)},
    fields=selectable_fields("spec.signerName"),
    validate_name=_anything,
)
