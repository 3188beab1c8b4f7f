"""Rules for a pod's volumes and the mounts of its containers. Pure."""

from __future__ import annotations

from controlplane.meta.names import config_map_key
from controlplane.resources.fieldpath import not_found
from controlplane.resources.podspec.claims import validate_claim_spec
from controlplane.resources.podspec.environment import (
    VOLUME_FIELDS,
    validate_field_ref,
    validate_resource_field_ref,
)
from controlplane.resources.podspec.volume_sources import POD_SOURCES, relative_path
from controlplane.resources.rules import Field

_MODE_MAX = 0o777
_MODE_MESSAGE = "must be a number between 0 and 0777 (octal), both inclusive"
_PROJECTED = ("clusterTrustBundle", "configMap", "downwardAPI", "secret", "serviceAccountToken")


def validate_volumes(volumes: Field) -> set[str]:
    """Checks each volume; returns the names that mounts may refer to."""
    names: set[str] = set()
    for volume in volumes:
        _source(volume)
        name = volume["name"]
        name.required().dns_label()
        if name.present and name.text in names:
            name.duplicate()
        names.add(name.text)
    return names - {""}


def _source(volume: Field) -> None:
    given = [name for name, value in (volume.value or {}).items() if name != "name" and value is not None]
    if not given:
        volume.of(None).required("must specify a volume type")
    for name in given[1:]:
        volume[name].forbidden("may not specify more than 1 volume type")
    if given and given[0] in _SOURCES:
        _SOURCES[given[0]](volume[given[0]])


def _empty_dir(source: Field) -> None:
    source["sizeLimit"].quantity()


def _secret(source: Field) -> None:
    source["secretName"].required()
    _mode(source["defaultMode"])
    _key_items(source["items"])


def _config_map(source: Field) -> None:
    source["name"].required()
    _mode(source["defaultMode"])
    _key_items(source["items"])


def _key_items(items: Field) -> None:
    for item in items:
        item["key"].required().check(config_map_key)
        relative_path(item["path"].required())
        _mode(item["mode"])


def _downward_api(source: Field) -> None:
    _mode(source["defaultMode"])
    for item in source["items"]:
        relative_path(item["path"].required())
        _mode(item["mode"])
        field, resource = item["fieldRef"], item["resourceFieldRef"]
        if field.value is not None:
            validate_field_ref(field, VOLUME_FIELDS)
            if resource.value is not None:
                item.of("resource").invalid(
                    "fieldRef and resourceFieldRef can not be specified simultaneously"
                )
        elif resource.value is not None:
            validate_resource_field_ref(resource, volume=True)
        else:
            item.of(None).required("one of fieldRef and resourceFieldRef is required")


def _projected(source: Field) -> None:
    _mode(source["defaultMode"])
    for part in source["sources"]:
        given = [name for name in _PROJECTED if part[name].value is not None]
        if not given:
            part.of(None).required(f"must specify one of: {', '.join(_PROJECTED)}")
        for name in given[1:]:
            part[name].forbidden("may not specify more than 1 volume type per source")
        for name in ("secret", "configMap"):
            if part[name].value is not None:
                part[name]["name"].required()
                _key_items(part[name]["items"])
        if part["downwardAPI"].value is not None:
            _downward_api(part["downwardAPI"])
        if part["serviceAccountToken"].value is not None:
            _token(part["serviceAccountToken"])


def _token(token: Field) -> None:
    seconds = token["expirationSeconds"]
    if isinstance(seconds.value, int) and seconds.value < 600:
        seconds.invalid("may not specify a duration less than 10 minutes")
    token["path"].required()
    relative_path(token["path"])


def _claim(source: Field) -> None:
    source["claimName"].required()


def _ephemeral(source: Field) -> None:
    template = source["volumeClaimTemplate"]
    if template.value is None:
        template.required()
    else:
        validate_claim_spec(template["spec"])


def _image(source: Field) -> None:
    source["reference"].required()
    source["pullPolicy"].one_of("Always", "IfNotPresent", "Never")


_SOURCES = {
    **POD_SOURCES,
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward_api,
    "projected": _projected,
    "persistentVolumeClaim": _claim,
    "ephemeral": _ephemeral,
    "image": _image,
}


def validate_mounts(mounts: Field, volumes: set[str]) -> None:
    """Each mount names a volume of the pod and a path no other mount has."""
    paths: set[str] = set()
    for mount in mounts:
        name, path = mount["name"].required(), mount["mountPath"].required()
        if name.text not in volumes:
            name.fail(not_found(name.path, name.text))
        if path.text in paths:
            path.invalid("must be unique")
        paths.add(path.text)
        relative_path(mount["subPath"])
        expression = mount["subPathExpr"]
        if expression.present and mount["subPath"].present:
            expression.invalid("subPathExpr and subPath are mutually exclusive")
        relative_path(expression)
        mount["mountPropagation"].one_of("Bidirectional", "HostToContainer", "None")
        mount["recursiveReadOnly"].one_of("Disabled", "Enabled", "IfPossible")


def _mode(mode: Field) -> None:
    if isinstance(mode.value, int) and not 0 <= mode.value <= _MODE_MAX:
        mode.invalid(_MODE_MESSAGE)
