"""Volumes, claims and the kinds of storage.k8s.io: faults in upstream's words, updates, rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.resources import defaulted, faults, said, update_faults

from controlplane.resources.catalog import (
    CSI_DRIVER,
    CSI_NODE,
    CSI_STORAGE_CAPACITY,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    STORAGE_CLASS,
    VOLUME_ATTACHMENT,
)

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
STAMP = "2026-01-01T00:00:00Z"
META = {"name": "x", "namespace": "default", "creationTimestamp": STAMP}
MODES = '"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'


def volume(source: Any = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": META,
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            **({"hostPath": {"path": "/x"}} if source is None else source),
            **spec,
        },
    }


AFFINITY = {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (volume(), []),
        (volume({"local": {"path": "/x"}}, nodeAffinity=AFFINITY), []),
        (volume({}), ["spec: Required value: must specify a volume type"]),
        (
            volume({"hostPath": {"path": "/x"}, "nfs": {"server": "s", "path": "/"}}),
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            volume(capacity={}),
            [
                "spec.capacity: Required value",
                'spec.capacity: Unsupported value: core.ResourceList{}: supported values: "storage"',
            ],
        ),
        (
            volume(capacity={"storage": "0"}),
            ['spec.capacity[storage]: Invalid value: "0": must be greater than zero'],
        ),
        (volume(accessModes=[]), ["spec.accessModes: Required value"]),
        (
            volume(accessModes=["Often"]),
            [f'spec.accessModes: Unsupported value: "Often": supported values: {MODES}'],
        ),
        (
            volume(accessModes=["ReadWriteOncePod", "ReadWriteOnce"]),
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        (
            volume(persistentVolumeReclaimPolicy="Keep"),
            [
                'spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", '
                '"Recycle", "Retain"'
            ],
        ),
        (
            volume({"hostPath": {"path": "/"}}, persistentVolumeReclaimPolicy="Recycle"),
            [
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"
            ],
        ),
        (
            volume(volumeMode="Tape"),
            ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"'],
        ),
        (
            volume({"local": {"path": "/x"}}),
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            volume(nodeAffinity={}),
            ["spec.nodeAffinity.required: Required value: must specify required node constraints"],
        ),
        (
            volume({"csi": {}}),
            ["spec.csi.driver: Required value", "spec.csi.volumeHandle: Required value"],
        ),
        (
            volume({"nfs": {"server": "s", "path": "x"}}),
            ['spec.nfs.path: Invalid value: "x": must be an absolute path'],
        ),
        (volume({"gcePersistentDisk": {}}), ["spec.persistentDisk.pdName: Required value"]),
        (
            volume({"awsElasticBlockStore": {"volumeID": "v", "partition": 256}}),
            ["spec.awsElasticBlockStore.partition: Invalid value: 256: must be between 1 and 255, inclusive"],
        ),
        (
            volume({"iscsi": {"targetPortal": "t", "iqn": "x", "lun": 300}}),
            [
                'spec.iscsi.iqn: Invalid value: "x": must be valid format starting with iqn, eui, or naa',
                "spec.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            ],
        ),
        (
            volume({"fc": {}}),
            ["spec.fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"],
        ),
        (
            volume({"flocker": {}}),
            ["spec.flocker: Required value: one of datasetName and datasetUUID is required"],
        ),
        (volume({"rbd": {}}), ["spec.rbd.monitors: Required value", "spec.rbd.image: Required value"]),
    ],
)
def test_faults_of_volumes(obj: Any, expected: list[str]) -> None:
    assert faults(PERSISTENT_VOLUME, obj) == expected


def test_what_a_volume_is_stays() -> None:
    changed = update_faults(PERSISTENT_VOLUME, volume({"hostPath": {"path": "/y"}}), volume())
    assert changed[0].startswith(
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
    )
    assert update_faults(PERSISTENT_VOLUME, volume(volumeMode="Block"), volume()) == [
        'volumeMode: Invalid value: "Block": field is immutable'
    ]
    assert update_faults(PERSISTENT_VOLUME, volume(capacity={"storage": "2Gi"}), volume()) == []
    secret = {"name": "a", "namespace": "b"}
    csi = {"driver": "d", "volumeHandle": "h"}
    new = volume({"csi": {**csi, "controllerExpandSecretRef": secret}})
    assert update_faults(PERSISTENT_VOLUME, new, volume({"csi": csi})) == []


def test_rows_of_volumes() -> None:
    obj = volume(
        claimRef={"namespace": "ns", "name": "c"},
        storageClassName="fast",
        accessModes=["ReadWriteMany", "ReadWriteOnce"],
    )
    obj = defaulted(PERSISTENT_VOLUME, obj)
    assert PERSISTENT_VOLUME.row is not None
    assert PERSISTENT_VOLUME.row(obj, NOW) == (
        "x", "1Gi", "RWO,RWX", "Retain", "Pending", "ns/c", "fast", "<unset>", "", "60s", "Filesystem",
    )  # fmt: skip
    PERSISTENT_VOLUME.prepare_create(obj)
    assert obj["status"]["phase"] == "Pending"
    bound = {**obj, "status": {"phase": "Bound"}}
    PERSISTENT_VOLUME.prepare_status(bound, {**obj, "status": {"phase": "Pending"}})
    assert bound["status"]["lastPhaseTransitionTime"]


def claim(size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": META,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec},
    }


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (claim(), []),
        (claim(accessModes=[]), ["spec.accessModes: Required value: at least 1 access mode is required"]),
        (claim(resources={}), ["spec.resources[storage]: Required value"]),
        (claim("0"), ['spec.resources[storage]: Invalid value: "0": must be greater than zero']),
        (
            claim(volumeMode="Tape"),
            ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"'],
        ),
        (
            claim(dataSource={"kind": "Pod", "name": ""}),
            [
                "spec.dataSource.name: Required value",
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the "
                "default apiGroup",
            ],
        ),
        (
            claim(
                dataSource={"kind": "PersistentVolumeClaim", "name": "a"},
                dataSourceRef={"kind": "PersistentVolumeClaim", "name": "b"},
            ),
            ["spec: Invalid value: spec.dataSource: must match dataSourceRef"],
        ),
    ],
)
def test_faults_of_claims(obj: Any, expected: list[str]) -> None:
    assert faults(PERSISTENT_VOLUME_CLAIM, obj) == expected


def bound(obj: dict[str, Any], size: str = "1Gi") -> dict[str, Any]:
    return {**obj, "status": {"phase": "Bound", "capacity": {"storage": size}}}


def test_updates_of_claims() -> None:
    def changes(new: Any, old: Any) -> list[str]:
        return update_faults(PERSISTENT_VOLUME_CLAIM, new, old)

    immutable = (
        "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName "
        "for bound claims"
    )
    assert changes(claim(volumeName="v"), claim()) == []
    assert changes(claim(volumeName="w"), claim(volumeName="v"))[0].startswith(immutable)
    assert changes(claim("2Gi"), claim())[0].startswith(immutable)
    assert changes(bound(claim("2Gi")), bound(claim())) == []
    assert changes(bound(claim("1Gi")), bound(claim("3Gi"))) == [
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    ]
    assert changes(bound(claim("2Gi")), bound(claim("3Gi"))) == []
    assert changes(claim(storageClassName="a"), claim()) == []
    assert changes(claim(storageClassName="b"), claim(storageClassName="a"))[0].startswith(immutable)


def test_rows_of_claims() -> None:
    assert PERSISTENT_VOLUME_CLAIM.row is not None
    obj = defaulted(PERSISTENT_VOLUME_CLAIM, bound(claim("1024Mi", volumeName="v", storageClassName="fast")))
    obj["status"]["accessModes"] = ["ReadWriteOnce"]
    assert PERSISTENT_VOLUME_CLAIM.row(obj, NOW) == (
        "x", "Bound", "v", "1Gi", "RWO", "fast", "<unset>", "60s", "Filesystem",
    )  # fmt: skip
    going = {**obj, "metadata": {**META, "deletionTimestamp": STAMP}}
    assert PERSISTENT_VOLUME_CLAIM.row(going, NOW)[1] == "Terminating"


def storage_class(provisioner: str = "example.com/disk", **rest: Any) -> dict[str, Any]:
    return {"metadata": META, "provisioner": provisioner, **rest}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (storage_class(), []),
        (storage_class(""), ["provisioner: Required value"]),
        (storage_class(parameters={"": "v"}), ['parameters: Invalid value: "": field can not be empty.']),
        (
            storage_class(reclaimPolicy="Recycle"),
            ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'],
        ),
        (
            storage_class(volumeBindingMode="Soon"),
            [
                'volumeBindingMode: Unsupported value: "Soon": supported values: "Immediate", '
                '"WaitForFirstConsumer"'
            ],
        ),
    ],
)
def test_faults_of_storage_classes(obj: Any, expected: list[str]) -> None:
    assert faults(STORAGE_CLASS, obj) == expected


def test_storage_classes_stay_and_tell_the_default() -> None:
    new = storage_class(
        "b", reclaimPolicy="Retain", parameters={"a": "b"}, volumeBindingMode="WaitForFirstConsumer"
    )
    assert update_faults(STORAGE_CLASS, new, storage_class()) == [
        "parameters: Forbidden: updates to parameters are forbidden.",
        "provisioner: Forbidden: updates to provisioner are forbidden.",
        "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        'volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable',
    ]
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    assert STORAGE_CLASS.row is not None
    row = STORAGE_CLASS.row({**storage_class(), "metadata": {**META, "annotations": annotations}}, NOW)
    assert row == ("x (default)", "example.com/disk", "Delete", "Immediate", False, "60s")


def attachment(**source: Any) -> dict[str, Any]:
    return {"metadata": META, "spec": {"attacher": "d", "nodeName": "n", "source": source}}


def test_volume_attachments() -> None:
    one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    assert faults(VOLUME_ATTACHMENT, attachment(persistentVolumeName="v")) == []
    assert faults(VOLUME_ATTACHMENT, attachment()) == [f"spec.source: Required value: {one}"]
    inline = {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"}}
    assert faults(VOLUME_ATTACHMENT, attachment(inlineVolumeSpec=inline)) == []
    assert faults(
        VOLUME_ATTACHMENT, attachment(inlineVolumeSpec={**inline, "capacity": {"storage": "1"}})
    ) == [
        "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes"
    ]
    both = attachment(inlineVolumeSpec=inline, persistentVolumeName="v")
    assert faults(VOLUME_ATTACHMENT, both) == [f"spec.source: Forbidden: {one}"]
    changed = update_faults(
        VOLUME_ATTACHMENT, attachment(persistentVolumeName="w"), attachment(persistentVolumeName="v")
    )
    assert changed[0].startswith("spec: Invalid value:")
    assert changed[0].endswith("field is immutable")
    assert said(VOLUME_ATTACHMENT.validate_create({"spec": {"attacher": "a" * 64}})) == [
        "spec.attacher: Too long: may not be more than 63 bytes"
    ]


def test_drivers_and_their_nodes() -> None:
    driver = defaulted(CSI_DRIVER, {"metadata": {**META, "name": "d.example.com"}})
    assert driver["spec"]["volumeLifecycleModes"] == ["Persistent"]
    assert CSI_DRIVER.row is not None
    assert CSI_DRIVER.row(driver, NOW)[1:] == (True, False, False, "<unset>", False, "Persistent", "60s")
    changed = {**driver, "spec": {**driver["spec"], "attachRequired": False}}
    assert update_faults(CSI_DRIVER, changed, driver) == [
        "spec.attachRequired: Invalid value: false: field is immutable"
    ]
    two = {"metadata": META, "spec": {"drivers": [{"name": "d", "nodeID": ""}, {"name": "d", "nodeID": "i"}]}}
    assert faults(CSI_NODE, two) == [
        "spec.drivers[0].nodeID: Required value",
        'spec.drivers[1].name: Duplicate value: "d"',
    ]
    one = {"metadata": META, "spec": {"drivers": [{"name": "d", "nodeID": "i"}]}}
    other = {"metadata": META, "spec": {"drivers": [{"name": "d", "nodeID": "j"}]}}
    assert len(update_faults(CSI_NODE, other, one)) == 1
    assert update_faults(CSI_NODE, {"metadata": META, "spec": {"drivers": []}}, one) == []
    assert faults(CSI_STORAGE_CAPACITY, {"metadata": META}) == ["storageClassName: Required value"]
