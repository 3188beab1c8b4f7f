"""A pod's volumes as directories and files of the machine. Writes files; decides nothing about containers.

Used by the pod workers. Everything lies under the pod's own directory and goes with it. Files of
ConfigMaps, Secrets and the downward API are switched to new contents at once, through a `..data` link as
kubelet does it.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.errors import Object
from netkit.node.podspec.environment import PodPlace, field_value, resource_value
from netkit.node.podspec.references import ConfigError, Reference, Sources, TokenWish, token_wish

_DATA = "..data"


class MountError(Exception):
    """A volume cannot be had; the text is kubelet's (`MountVolume.SetUp failed for volume "x" : ...`)."""


def prepare(
    pod: Object, directory: Path, place: PodPlace, sources: Sources, tokens: Mapping[TokenWish, str]
) -> dict[str, str]:
    """Make or refresh every volume; volume name -> path. `tokens` are ServiceAccount tokens by what is asked for.

    Raises MountError.
    """
    paths = {}
    for volume in pod["spec"].get("volumes") or ():
        name = volume["name"]
        try:
            paths[name] = _prepare_one(pod, volume, directory / name, place, sources, tokens)
        except (ConfigError, OSError) as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    return paths


def _prepare_one(
    pod: Object,
    volume: Object,
    path: Path,
    place: PodPlace,
    sources: Sources,
    tokens: Mapping[TokenWish, str],
) -> str:
    if "hostPath" in volume:
        return _host_path(volume["hostPath"])
    if "emptyDir" in volume:
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(0o777)
        return str(path)
    files: dict[str, tuple[bytes, int]]
    if "configMap" in volume:
        source = volume["configMap"]
        files = _keys(source, Reference("configmap", source.get("name", "")), source, sources)
    elif "secret" in volume:
        source = volume["secret"]
        files = _keys(source, Reference("secret", source.get("secretName", "")), source, sources)
    elif "downwardAPI" in volume:
        files = _downward(pod, volume["downwardAPI"], place, volume["downwardAPI"].get("defaultMode", 0o644))
    elif "projected" in volume:
        files = _projected(pod, volume["projected"], place, sources, tokens)
    else:
        kind = next((key for key in volume if key != "name"), "none")
        raise MountError(
            f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind} volumes are not supported'
        )
    _publish(path, files)
    return str(path)


def _host_path(source: Object) -> str:
    path, kind = source["path"], source.get("type") or ""
    checks = {"Directory": stat.S_ISDIR, "File": stat.S_ISREG, "Socket": stat.S_ISSOCK, "CharDevice": stat.S_ISCHR,
              "BlockDevice": stat.S_ISBLK}  # fmt: skip
    if kind == "DirectoryOrCreate":
        os.makedirs(path, 0o755, exist_ok=True)
    elif kind == "FileOrCreate" and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    elif kind == "":
        if not os.path.exists(path):
            os.makedirs(path, 0o755)
    elif kind in checks and not (os.path.exists(path) and checks[kind](os.stat(path).st_mode)):
        words = {"Directory": "a directory", "File": "a file", "Socket": "a socket file"}
        raise ConfigError(f"hostPath type check failed: {path} is not {words.get(kind, kind)}")
    return str(path)


def _keys(
    source: Object, reference: Reference, options: Object, sources: Sources
) -> dict[str, tuple[bytes, int]]:
    mode = int(options.get("defaultMode") or 0o644)
    optional = bool(source.get("optional"))
    items = source.get("items")
    if not items:
        return {key: (value, mode) for key, value in sources.data(reference, optional).items()}
    files = {}
    for item in items:
        value = sources.value(reference, item["key"], optional)
        if value is not None:
            files[item["path"]] = (value, int(item.get("mode") or mode))
    return files


def _downward(pod: Object, source: Object, place: PodPlace, mode: int) -> dict[str, tuple[bytes, int]]:
    files = {}
    for item in source.get("items") or ():
        if item.get("fieldRef"):
            text = field_value(pod, item["fieldRef"].get("fieldPath", ""), place)
        else:
            text = resource_value(
                pod, pod["spec"]["containers"][0], item.get("resourceFieldRef") or {}, place
            )
        files[item["path"]] = (text.encode(), int(item.get("mode") or mode))
    return files


def _projected(
    pod: Object, volume: Object, place: PodPlace, sources: Sources, tokens: Mapping[TokenWish, str]
) -> dict[str, tuple[bytes, int]]:
    mode = int(volume.get("defaultMode") or 0o644)
    files: dict[str, tuple[bytes, int]] = {}
    for source in volume.get("sources") or ():
        options: dict[str, Any] = {"defaultMode": mode}
        if source.get("configMap"):
            part = source["configMap"]
            files |= _keys(part, Reference("configmap", part.get("name", "")), options, sources)
        elif source.get("secret"):
            part = source["secret"]
            files |= _keys(part, Reference("secret", part.get("name", "")), options, sources)
        elif source.get("downwardAPI"):
            files |= _downward(pod, source["downwardAPI"], place, mode)
        elif source.get("serviceAccountToken"):
            part = source["serviceAccountToken"]
            files[part["path"]] = (tokens[token_wish(part)].encode(), mode)
    return files


def _publish(path: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Write the files unless they are there already, then switch `..data` to them at once."""
    current = path / _DATA
    if current.is_dir() and _contents(current) == {name: data for name, (data, _) in files.items()}:
        return
    path.mkdir(parents=True, exist_ok=True)
    fresh = path / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.time_ns() % 1_000_000_000:09d}"
    fresh.mkdir(0o755)
    for name, (data, mode) in files.items():
        file = _inside(fresh, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(mode & 0o7777)
    before = os.readlink(current) if current.is_symlink() else ""
    link = path / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(current)
    tops = {name.split("/")[0] for name in files}
    for top in tops:
        entry = path / top
        if not entry.is_symlink():
            entry.symlink_to(f"{_DATA}/{top}")
    for entry in path.iterdir():
        if entry.is_symlink() and entry.name not in (*tops, _DATA):
            entry.unlink()
    if before:
        shutil.rmtree(path / before, ignore_errors=True)


def _inside(root: Path, name: str) -> Path:
    if name.startswith("/") or ".." in name.split("/"):
        raise ConfigError(f"invalid path {name}")
    return root / name


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }
