"""CSIDriver, CSINode and CSIStorageCapacity: what storage drivers tell the cluster (pkg/apis/storage, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, UNSET, joined
from controlplane.resources.fieldpath import duplicate, required
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.podspec.volume_sources import csi_driver_name
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

_DRIVER = "io.k8s.api.storage.v1.CSIDriverSpec"
_CAPACITY = "io.k8s.api.storage.v1.CSIStorageCapacity"
_NODE_ID_MAX = 192
_MIN_TOKEN_SECONDS, _MAX_TOKEN_SECONDS = 600, 1 << 32


def _default_driver(driver: Object) -> None:
    spec = driver["spec"] = driver.get("spec") or {}
    for field, value in (
        ("attachRequired", True),
        ("podInfoOnMount", False),
        ("storageCapacity", False),
        ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("requiresRepublish", False),
        ("seLinuxMount", False),
    ):
        if spec.get(field) is None:
            spec[field] = value
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _validate_driver(driver: Object) -> Sequence[Cause]:
    field = Field.root(driver)
    csi_driver_name(Field(name(driver), "metadata.name", field.causes))
    spec = field["spec"]
    for flag in ("podInfoOnMount", "storageCapacity"):
        if spec[flag].value is None:
            spec[flag].required()
    if spec["attachRequired"].value is None:
        field.fail(required("spec.attachedRequired"))
    modes = spec["volumeLifecycleModes"]
    for mode in modes:
        modes.of(mode.value or " ").one_of("Ephemeral", "Persistent")
    policy = spec["fsGroupPolicy"]
    policy.one_of("File", "None", "ReadWriteOnceWithFSType")
    audiences: set[str] = set()
    for request in spec["tokenRequests"]:
        audience = request["audience"]
        if audience.text in audiences:
            audience.of(audience.text).duplicate()
        audiences.add(audience.text)
        seconds = request["expirationSeconds"]
        if isinstance(seconds.value, int) and seconds.value < _MIN_TOKEN_SECONDS:
            seconds.invalid("may not specify a duration less than 10 minutes")
        if isinstance(seconds.value, int) and seconds.value > _MAX_TOKEN_SECONDS:
            seconds.invalid("may not specify a duration larger than 2^32 seconds")
    return field.causes


def _validate_driver_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    spec, before = field["spec"], Field.root(old)["spec"]
    spec["attachRequired"].unchanged(before["attachRequired"])
    spec["fsGroupPolicy"].unchanged(before["fsGroupPolicy"])
    spec["volumeLifecycleModes"].unchanged(before["volumeLifecycleModes"])
    return field.causes


def _driver_row(driver: Object, now: datetime) -> Sequence[object]:
    spec = driver.get("spec") or {}
    tokens = spec.get("tokenRequests")
    attach = spec.get("attachRequired")
    return (
        name(driver),
        attach is None or attach,
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        UNSET if tokens is None else joined(token.get("audience", "") for token in tokens),
        bool(spec.get("requiresRepublish")),
        joined(spec.get("volumeLifecycleModes") or ()) or "<none>",
        age(driver, now),
    )


def _default_node(node: Object) -> None:
    spec = node["spec"] = node.get("spec") or {}
    spec["drivers"] = spec.get("drivers") or []


def _validate_node(node: Object) -> Sequence[Cause]:
    field = Field.root(node)
    names: set[str] = set()
    for driver in field["spec"]["drivers"]:
        csi_driver_name(driver["name"])
        node_id = driver["nodeID"].required()
        if len(node_id.text) > _NODE_ID_MAX:
            node_id.invalid(f"must be {_NODE_ID_MAX} characters or less")
        driver["allocatable"]["count"].not_negative()
        if driver["name"].text in names:
            driver["name"].of(driver["name"].text).duplicate()
        names.add(driver["name"].text)
        _topology_keys(driver)
    return field.causes


def _topology_keys(driver: Field) -> None:
    seen: set[str] = set()
    for key in driver["topologyKeys"]:
        if not key.present:
            driver.of(None).required()
        if key.text in seen:
            driver.fail(duplicate(driver.path, key.text))
        seen.add(key.text)
        driver.of(key.text).qualified_name()


def _validate_node_update(new: Object, old: Object) -> Sequence[Cause]:
    """A driver comes and goes as a whole."""
    field = Field.root(new)
    before = dig(old, "spec", "drivers", default=())
    for driver in dig(new, "spec", "drivers", default=()):
        known = [other for other in before if other.get("name") == driver.get("name")]
        if known and not any(same(other, driver) for other in known):
            Field(driver, "CSINodeDriver", field.causes).invalid("field is immutable")
    return field.causes


def _node_row(node: Object, now: datetime) -> Sequence[object]:
    return name(node), len(dig(node, "spec", "drivers", default=())), age(node, now)


def _validate_capacity(capacity: Object) -> Sequence[Cause]:
    field = Field.root(capacity)
    field["storageClassName"].required().dns_subdomain()
    if field["nodeTopology"].value is not None:
        validate_label_selector(field["nodeTopology"])
    for amount in ("capacity", "maximumVolumeSize"):
        field[amount].quantity()
    return field.causes


def _validate_capacity_update(new: Object, old: Object) -> Sequence[Cause]:
    field, before = Field.root(new), Field.root(old)
    for part in ("nodeTopology", "storageClassName"):
        field[part].unchanged(before[part])
    return field.causes


def _capacity_row(capacity: Object, now: datetime) -> Sequence[object]:
    return name(capacity), capacity.get("storageClassName", ""), str(capacity.get("capacity", UNSET))


CSI_DRIVER = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="CSIDriver",
    plural="csidrivers",
    singular="csidriver",
    namespaced=False,
    columns=(
        NAME,
        Column("AttachRequired", type="boolean", documents=f"{_DRIVER}.attachRequired"),
        Column("PodInfoOnMount", type="boolean", documents=f"{_DRIVER}.podInfoOnMount"),
        Column("StorageCapacity", type="boolean", documents=f"{_DRIVER}.storageCapacity"),
        Column("TokenRequests", documents=f"{_DRIVER}.tokenRequests"),
        Column("RequiresRepublish", type="boolean", documents=f"{_DRIVER}.requiresRepublish"),
        Column("Modes", documents=f"{_DRIVER}.volumeLifecycleModes"),
        AGE,
    ),
    row=_driver_row,
    default=_default_driver,
    validate=_validate_driver,
    validate_update=_validate_driver_update,
    generation=True,
    fields=selectable_fields(),
)

CSI_NODE = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="CSINode",
    plural="csinodes",
    singular="csinode",
    namespaced=False,
    columns=(
        NAME,
        Column(
            "Drivers",
            type="integer",
            description="Drivers indicates the number of CSI drivers registered on the node",
        ),
        AGE,
    ),
    row=_node_row,
    default=_default_node,
    validate=_validate_node,
    validate_update=_validate_node_update,
    fields=selectable_fields(),
)

CSI_STORAGE_CAPACITY = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="CSIStorageCapacity",
    plural="csistoragecapacities",
    singular="csistoragecapacity",
    namespaced=True,
    columns=(
        NAME,
        Column("StorageClassName", documents=f"{_CAPACITY}.storageClassName"),
        Column("Capacity", documents=f"{_CAPACITY}.capacity"),
    ),
    row=_capacity_row,
    validate=_validate_capacity,
    validate_update=_validate_capacity_update,
    fields=selectable_fields(),
)
