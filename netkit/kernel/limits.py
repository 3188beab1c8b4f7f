"""Limits of this process. Called by parts that hold many sockets."""

from __future__ import annotations

import resource

from netkit.kernel.errors import from_os_error


def allow_open_files(wanted: int) -> int:
    """Let this process have `wanted` files open, or as many as it may; never fewer than before. Returns how many.

    Only root may go beyond the hard limit. Raises KernelError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    try:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    except (OSError, ValueError) as error:
        raise from_os_error(
            error if isinstance(error, OSError) else OSError(0, str(error)), "setrlimit(RLIMIT_NOFILE)"
        ) from error
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
