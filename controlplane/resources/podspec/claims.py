"""Claims for storage: defaults and rules of a PersistentVolumeClaim's spec, which pods and StatefulSets have in
templates too (pkg/apis/core/validation, v1.32). Pure.
"""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.resources.fieldpath import Literal, not_supported
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field, same

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def default_claim_spec(spec: Object) -> None:
    """Also of the templates in pods and StatefulSets."""
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    for amounts in ("requests", "limits"):
        canonical(spec.get("resources") or {}, amounts)
    spec.setdefault("resources", {})


def validate_claim_spec(spec: Field) -> None:
    """Also of the templates in pods and StatefulSets."""
    if spec["selector"].value is not None:
        validate_label_selector(spec["selector"])
    access_modes(spec["accessModes"], "at least 1 access mode is required")
    wanted = spec["resources"]["requests"]["storage"]
    amount = Field(wanted.value, f"{spec.path}.resources[storage]", spec.causes)
    if amount.value is None:
        amount.required()
    else:
        positive_quantity(amount)
    spec["storageClassName"].dns_subdomain()
    spec["volumeMode"].one_of(*VOLUME_MODES)
    for source in ("dataSource", "dataSourceRef"):
        if spec[source].value is not None:
            _data_source(spec[source])
    if spec["dataSource"].value is not None and spec["dataSourceRef"].value is not None:
        without = {key: value for key, value in spec["dataSourceRef"].value.items() if key != "namespace"}
        if not same(spec["dataSource"].value, without):
            spec.of(Literal(f"{spec.path}.dataSource")).invalid("must match dataSourceRef")
    spec["volumeAttributesClassName"].dns_subdomain()


def _data_source(source: Field) -> None:
    source["name"].required()
    source["kind"].required()
    if not source["apiGroup"].present and source["kind"].text != "PersistentVolumeClaim":
        source.of(source["kind"].text).invalid(
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        )
    source["apiGroup"].dns_subdomain()


def access_modes(modes: Field, missing: str = "") -> None:
    """Of volumes and claims."""
    modes.required(missing)
    alone, others = False, False
    for mode in modes:
        if mode.value not in ACCESS_MODES:
            modes.fail(not_supported(modes.path, mode.text, ACCESS_MODES))
        alone = alone or mode.value == "ReadWriteOncePod"
        others = others or mode.value in ACCESS_MODES[:3]
    if alone and others:
        modes.forbidden("may not use ReadWriteOncePod with other access modes")


def positive_quantity(amount: Field) -> None:
    parsed = amount.quantity()
    if parsed is not None and parsed.nanos == 0:
        amount.of(str(parsed)).invalid("must be greater than zero")
