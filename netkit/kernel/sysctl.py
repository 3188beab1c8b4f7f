"""Kernel settings under /proc/sys of one namespace. Called wherever a machine or pod is set up; never for the
host's own.

Keys are as sysctl(8) takes them: `net.ipv4.ip_forward`, or with slashes where a link's name holds a dot
(`net/ipv4/conf/flannel.1/rp_filter`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from netkit.kernel import netns
from netkit.kernel.errors import KernelError, Unsupported, from_os_error
from netkit.kernel.netns import Namespace


def read(ns: Namespace, key: str) -> str:
    """The value in `ns`, without the newline. Unsupported when this kernel has no such setting."""
    with netns.entered(ns):
        return _read(ns, key)


def write(ns: Namespace, key: str, value: str | int) -> None:
    """Set the value in `ns` and read it back. KernelError when refused or when it did not take effect."""
    write_all(ns, {key: value})


def write_all(ns: Namespace, settings: Mapping[str, str | int]) -> None:
    """Set several values in one visit to `ns`, as `write`; stops at the first that fails."""
    with netns.entered(ns):
        for key, value in settings.items():
            operation = f"sysctl -w {key}={value}"
            try:
                _path(key).write_text(str(value))
            except FileNotFoundError as error:
                raise _missing(operation, ns, key) from error
            except OSError as error:
                raise from_os_error(error, operation, ns.name) from error
            now = _read(ns, key)
            if now.split() != str(value).split():
                raise KernelError(operation, ns.name, stderr=f"the value is still {now!r}")


def present(ns: Namespace, key: str) -> bool:
    """Whether this kernel has the setting in `ns`."""
    with netns.entered(ns):
        return _path(key).exists()


def _read(ns: Namespace, key: str) -> str:
    try:
        return _path(key).read_text().rstrip("\n")
    except FileNotFoundError as error:
        raise _missing(f"sysctl {key}", ns, key) from error
    except OSError as error:
        raise from_os_error(error, f"sysctl {key}", ns.name) from error


def _path(key: str) -> Path:
    return Path("/proc/sys") / (key if "/" in key else key.replace(".", "/"))


def _missing(operation: str, ns: Namespace, key: str) -> Unsupported:
    hint = "load the br_netfilter module" if "bridge" in key else "this kernel does not have the setting"
    return Unsupported(operation, ns.name, errno.ENOENT, hint=hint)
