"""Rules for the sources of storage that pods' volumes and PersistentVolumes share (pkg/apis/core/validation,
v1.32). Pure. Each rule takes the place of the source; persistent ones name what differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from controlplane.meta.names import dns1123_label, dns1123_subdomain, qualified_name
from controlplane.resources.rules import Field, range_error

SourceRule = Callable[[Field], None]

_PARTITION = range_error(1, 255)
_LUN = range_error(0, 255)
_ISCSI_NAME = re.compile(
    r"iqn\.\d{4}-\d{2}\.([a-z0-9-]+\.?)+(:.+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16}"
).fullmatch
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_DRIVER_MAX = 63


def relative_path(path: Field) -> None:
    if path.text.startswith("/"):
        path.invalid("must be a relative path")
    no_way_up(path)


def no_way_up(path: Field) -> None:
    if ".." in path.text.split("/"):
        path.invalid("must not contain '..'")


def host_path(source: Field) -> None:
    source["path"].required()
    no_way_up(source["path"])
    if source["type"].text not in _HOST_PATH_TYPES:
        source["type"].one_of(*_HOST_PATH_TYPES)


def nfs(source: Field) -> None:
    source["server"].required()
    path = source["path"].required()
    if path.present and not path.text.startswith("/"):
        path.invalid("must be an absolute path")


def csi_driver_name(name: Field) -> Field:
    """Required, at most 63 characters, a subdomain in any case."""
    if not name.present:
        return name.required()
    name.max_bytes(_DRIVER_MAX)
    for message in dns1123_subdomain(name.text.lower()):
        name.invalid(message)
    return name


def csi(source: Field) -> None:
    """Of a pod: inline."""
    csi_driver_name(source["driver"])
    secret = source["nodePublishSecretRef"]
    if secret.value is not None:
        secret["name"].required().dns_subdomain()


def persistent_csi(source: Field) -> None:
    csi_driver_name(source["driver"])
    source["volumeHandle"].required()
    for name in (
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ):
        if source[name].value is not None:
            _secret(source[name])


def _secret(secret: Field, *, with_namespace: bool = True) -> None:
    secret["name"].required()
    if with_namespace:
        secret["namespace"].required()


def _gce_disk(source: Field) -> None:
    source["pdName"].required()
    _partition(source["partition"])


def _aws_disk(source: Field) -> None:
    source["volumeID"].required()
    _partition(source["partition"])


def _partition(partition: Field) -> None:
    if isinstance(partition.value, int) and not 0 <= partition.value <= 255:
        partition.invalid(_PARTITION)


def _git_repo(source: Field) -> None:
    source["repository"].required()
    relative_path(source["directory"])


def _iscsi(source: Field, *, with_namespace: bool = False) -> None:
    source["targetPortal"].required()
    name = source["iqn"].required()
    if name.present:
        if not name.text.startswith(("iqn", "eui", "naa")):
            name.invalid("must be valid format starting with iqn, eui, or naa")
        elif not _ISCSI_NAME(name.text):
            name.invalid("must be valid format")
    lun = source["lun"].of(source["lun"].value or 0)
    if not 0 <= lun.value <= 255:
        lun.invalid(_LUN)
    secret = source["secretRef"]
    if (source["chapAuthDiscovery"].value or source["chapAuthSession"].value) and secret.value is None:
        secret.required()
    if secret.value is not None:
        _secret(secret, with_namespace=with_namespace)
    initiator = Field(source["initiatorName"].value, f"{source.path}.initiatorname", source.causes)
    if initiator.value is not None and not _ISCSI_NAME(initiator.text):
        initiator.invalid("must be valid format")


def _fibre_channel(source: Field) -> None:
    names, wide_ids = source["targetWWNs"], source["wwids"]
    if not len(names) and not len(wide_ids):
        names.of(None).required("must specify either targetWWNs or wwids, but not both")
    if len(names) and len(wide_ids):
        names.invalid("targetWWNs and wwids can not be specified simultaneously")
    if len(names):
        lun = source["lun"]
        if lun.value is None:
            lun.required("lun is required if targetWWNs is specified")
        elif not 0 <= lun.value <= 255:
            lun.invalid(_LUN)


def _needs(*names: str) -> SourceRule:
    """All of these fields must be there."""

    def rule(source: Field) -> None:
        for name in names:
            source[name].required()

    return rule


def _with_secret(*names: str, namespace: bool) -> SourceRule:
    """The same, and a secret that must be whole where it is given."""

    def rule(source: Field) -> None:
        _needs(*names)(source)
        if source["secretRef"].value is not None:
            _secret(source["secretRef"], with_namespace=namespace)

    return rule


def _flocker(source: Field) -> None:
    name, uuid = source["datasetName"], source["datasetUUID"]
    if not name.present and not uuid.present:
        source.of(None).required("one of datasetName and datasetUUID is required")
    if name.present and uuid.present:
        source.of("resource").invalid("datasetName and datasetUUID can not be specified simultaneously")
    if "/" in name.text:
        name.invalid("must not contain '/'")


def _quobyte(source: Field) -> None:
    registry = source["registry"]
    if not registry.present:
        registry.required("must be a host:port pair or multiple pairs separated by commas")
    elif len(source["tenant"].text) >= 65:
        source["tenant"].of(None).required("must be a UUID and may not exceed a length of 64 characters")
    else:
        for pair in registry.text.split(","):
            if not pair.rpartition(":")[0]:
                registry.invalid("must be a host:port pair or multiple pairs separated by commas")
    source["volume"].required()


def _azure_disk(source: Field) -> None:
    source["diskName"].required()
    uri = source["diskURI"].required()
    source["cachingMode"].one_of("None", "ReadOnly", "ReadWrite")
    kind = source["kind"].one_of("Dedicated", "Managed", "Shared")
    managed = uri.text.lower().startswith("/subscriptions/")
    if kind.value == "Managed" and not managed:
        uri.one_of(
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        )
    if kind.present and kind.value != "Managed" and not uri.text.startswith("https://"):
        uri.one_of("https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")


def _storage_os(source: Field, *, namespaced_secret: bool = False) -> None:
    source["volumeName"].required().check(dns1123_label)
    source["volumeNamespace"].check(dns1123_label)
    if source["secretRef"].value is not None:
        _secret(source["secretRef"], with_namespace=namespaced_secret)


def _flex(source: Field) -> None:
    source["driver"].required()
    for key, option in source["options"].entries():
        domain = key.lower().partition("/")[0]
        if domain.endswith(("kubernetes.io", "k8s.io")) and qualified_name(key.lower()) == []:
            option.of(key).invalid("kubernetes.io and k8s.io namespaces are reserved")


def _local(source: Field) -> None:
    source["path"].required()
    no_way_up(source["path"])


_EVERYWHERE: Mapping[str, SourceRule] = {
    "hostPath": host_path,
    "gcePersistentDisk": _gce_disk,
    "awsElasticBlockStore": _aws_disk,
    "nfs": nfs,
    "flocker": _flocker,
    "fc": _fibre_channel,
    "quobyte": _quobyte,
    "vsphereVolume": _needs("volumePath"),
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "azureDisk": _azure_disk,
    "flexVolume": _flex,
    "glusterfs": _needs("endpoints", "path"),
}

POD_SOURCES: Mapping[str, SourceRule] = {
    **_EVERYWHERE,
    "gitRepo": _git_repo,
    "iscsi": _iscsi,
    "rbd": _needs("monitors", "image"),
    "cinder": _with_secret("volumeID", namespace=False),
    "cephfs": _needs("monitors"),
    "azureFile": _needs("secretName", "shareName"),
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "storageos": _storage_os,
    "csi": csi,
}
"""By the volume's field; sources that only pods have are in `volumes`."""

PERSISTENT_SOURCES: Mapping[str, SourceRule] = {
    **_EVERYWHERE,
    "rbd": _needs("monitors", "image"),
    "cephfs": _needs("monitors"),
    "iscsi": lambda source: _iscsi(source, with_namespace=True),
    "cinder": _with_secret("volumeID", namespace=True),
    "azureFile": _needs("secretName", "shareName"),
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "local": _local,
    "storageos": lambda source: _storage_os(source, namespaced_secret=False),
    "csi": persistent_csi,
}
"""By the field of a PersistentVolume's spec, in upstream's order of checking."""
