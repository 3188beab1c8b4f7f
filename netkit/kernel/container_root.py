"""A container's view of the file system, built in the child between `clone` and `exec`.

The root directory (the machine's `/`, or an image's root directory) is the lower layer of an overlay
whose upper layer is a tmpfs inside the container's own mount namespace: nothing is written to the
machine, nothing is left when the container ends, and no other namespace's mounts are seen. Called by
`container` only; must not run in the parent.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from netkit.kernel.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    umount,
)  # fmt: skip

_DEVICES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)  # fmt: skip
_SYSTEM_FOLDERS = ("usr", "opt", "home", "root", "var", "srv", "etc")


@dataclass(frozen=True, slots=True)
class Bind:
    """`source` (file or directory of the machine) shown at `target` (absolute path in the container)."""

    source: str
    target: str
    read_only: bool = False


def overlay_available() -> bool:
    """Whether this kernel knows overlayfs; without it containers see the machine's files read-only."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1:] == ["overlay"] for line in file)


def enter_root(
    lower: str, scratch: str, binds: Sequence[Bind], masked: Sequence[str], *, read_only: bool = False
) -> None:
    """Make the calling process' root directory the container's; it must own its mount namespace.

    `scratch` is an existing empty directory to build in, `masked` are directories that shall look empty;
    with `read_only` nothing can be written but what is mounted by `binds`. Raises `OSError` that names what
    could not be mounted.
    """
    mount("none", "/", "none", MS_PRIVATE | MS_REC)
    mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
    root = f"{scratch}/root"
    writable = _mount_root(lower, scratch, root)
    separate = _show_separate_file_systems(scratch, root) if lower == "/" else []
    _mount_kernel_folders(root, writable)
    for path in masked:
        if path != "/" and os.path.isdir(root + path):
            mount("tmpfs", root + path, "tmpfs", MS_RDONLY, "mode=700")
    for bind in binds:
        _bind(bind, root, writable)
    if read_only:
        volumes = {bind.target for bind in binds}
        ours = [("/tmp", MS_NOSUID | MS_NODEV), ("/run", MS_NOSUID | MS_NODEV), ("/", 0)]
        for folder, flags in [*ours, *((path, 0) for path in separate)]:
            if folder not in volumes:
                mount("none", root + folder, "none", MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
    os.chdir(root)
    pivot_root(".", ".")
    umount(".", MNT_DETACH)
    os.chdir("/")


def _mount_root(lower: str, scratch: str, root: str) -> bool:
    os.mkdir(root, 0o755)
    return _mount_layers(lower, f"{scratch}/layers", root)


def _mount_layers(lower: str, layers: str, target: str) -> bool:
    """Show the folder `lower` at `target`; what is written there stays below `layers`, which must not exist.

    False where the kernel cannot, or not on this file system: then it is shown read-only.
    """
    upper, work = f"{layers}/upper", f"{layers}/work"
    os.makedirs(upper)
    os.mkdir(work)
    # The uppermost layer says who may enter the folder.
    facts = os.stat(lower)
    os.chown(upper, facts.st_uid, facts.st_gid)
    os.chmod(upper, stat.S_IMODE(facts.st_mode))
    try:
        mount("overlay", target, "overlay", 0, f"lowerdir={_escaped(lower)},upperdir={upper},workdir={work}")
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL, errno.EPERM):
            raise
        mount(lower, target, "none", MS_BIND)
        mount("none", target, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)
        return False
    return True


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _show_separate_file_systems(scratch: str, root: str) -> list[str]:
    """Add what the overlay of `/` does not show: system folders that are mounts of their own, which it returns."""
    found = [path for path in map("/{}".format, _SYSTEM_FOLDERS) if os.path.ismount(path)]
    for path in found:
        _mount_layers(path, f"{scratch}/layers{path}", root + path)
    return found


def _mount_kernel_folders(root: str, writable: bool) -> None:
    for name in ("proc", "sys", "dev", "tmp", "run"):
        if writable:
            os.makedirs(f"{root}/{name}", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        mount("sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    except PermissionError:  # a user namespace that does not own the network namespace
        mount("/sys", f"{root}/sys", "none", MS_BIND | MS_REC)
    for name, mode in (("tmp", "1777"), ("run", "755")):
        mount("tmpfs", f"{root}/{name}", "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    os.mkdir(f"{root}/run/lock", 0o755)
    dev = f"{root}/dev"
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name, major, minor in _DEVICES:
        _device(f"{dev}/{name}", name, major, minor)
    os.mkdir(f"{dev}/pts", 0o755)
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    os.mkdir(f"{dev}/shm", 0o755)
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
    for link, destination in (
        ("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
    ):  # fmt: skip
        os.symlink(destination, f"{dev}/{link}")


def _device(path: str, name: str, major: int, minor: int) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(path, 0o666)
    except PermissionError:  # user namespaces may not make devices, but may show the machine's
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        mount(f"/dev/{name}", path, "none", MS_BIND)


def _bind(bind: Bind, root: str, writable: bool) -> None:
    target = _inside(root, bind.target)
    if writable:
        _make_target(target, directory=os.path.isdir(bind.source))
    mount(bind.source, target, "none", MS_BIND | MS_REC)
    if bind.read_only:
        mount("none", target, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)


def _inside(root: str, path: str) -> str:
    """Where `path` of the container lies under `root`, with links of its folders followed inside `root`."""
    done = root
    pending = [part for part in path.split("/") if part not in ("", ".")]
    followed = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            done = os.path.dirname(done) if done != root else root
            continue
        candidate = f"{done}/{part}"
        if not pending or not os.path.islink(candidate):
            done = candidate
            continue
        followed += 1
        if followed > 40:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        link = os.readlink(candidate)
        if link.startswith("/"):
            done = root
        pending = [piece for piece in link.split("/") if piece not in ("", ".")] + pending
    return done


def _make_target(target: str, *, directory: bool) -> None:
    """Ready a mount point. A link there (as /etc/resolv.conf often is) gives way: the upper layer is ours."""
    if os.path.islink(target):
        os.unlink(target)
    if directory:
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
