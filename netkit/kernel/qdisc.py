"""Queueing disciplines that make a link slow, late or lossy: `tbf` and, where the kernel has it, `netem`.

Called by `netkit.fabric.shaping`. They work on what leaves by a link. Set and read by tc(8), which has JSON for both.
"""

from __future__ import annotations

import json
from typing import Any, Final

from netkit.kernel import process
from netkit.kernel.netns import Namespace

_TBF_WAIT: Final = "50ms"
"""How long a packet may wait for its turn before it is dropped."""

_LEAST_BURST: Final = 20_000
_BURST_SECONDS: Final = 0.005
"""A bucket holds what the rate gives in this time: the kernel fills it at its timer's ticks."""

_NETEM_PACKETS: Final = 100_000


def tbf(ns: Namespace, link: str, rate: int) -> None:
    """Let at most `rate` bits per second leave by the link. Raises CommandFailed, Unsupported."""
    burst = max(_LEAST_BURST, round(rate / 8 * _BURST_SECONDS))
    _replace(ns, link, "tbf", "rate", f"{rate}bit", "burst", f"{burst}b", "latency", _TBF_WAIT)


def netem(ns: Namespace, link: str, *, rate: int, delay: float, jitter: float, loss: float) -> None:
    """Delay by `delay` seconds, `jitter` more or less; lose the share `loss`; at most `rate` bits per second (0: any).

    Raises CommandFailed, Unsupported.
    """
    words = ["limit", str(_NETEM_PACKETS)]
    if delay:
        words += ["delay", _microseconds(delay), *([_microseconds(jitter)] if jitter else [])]
    if loss:
        words += ["loss", f"{loss * 100:.10g}%"]
    if rate:
        words += ["rate", f"{rate}bit"]
    _replace(ns, link, "netem", *words)


def kinds(ns: Namespace) -> dict[str, str]:
    """The kind of each link's root discipline, for links that have one."""
    told: list[dict[str, Any]] = json.loads(
        process.run(["tc", "-j", "qdisc", "show"], ns=ns, check=True).stdout
    )
    return {each["dev"]: each["kind"] for each in told if each.get("root")}


def _replace(ns: Namespace, link: str, *words: str) -> None:
    process.run(["tc", "qdisc", "replace", "dev", link, "root", *words], ns=ns, check=True)


def _microseconds(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"
