"""What this machine's kernel and commands can do, found by trying, in a namespace that is thrown away.

Called by `netkit doctor`, and by whoever must refuse by name what the kernel lacks. Everything is tried in a
child process with network and mount namespaces of its own, so nothing is left behind and nothing of the
machine's own is touched (the kernel may load a module, as it would on first use). Takes well under 1.5 s.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Final

from netkit.kernel import bird, netns, syscalls
from netkit.kernel import probe_checks as checks
from netkit.kernel.errors import KernelError

_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing tried. `detail` is what was found (a version, the kernel's refusal), `how_to_get` one
    sentence.
    """

    name: str
    present: bool
    detail: str
    needed_by: str
    how_to_get: str


@dataclass(frozen=True, slots=True)
class _Trial:
    """`check` returns a detail, or raises OSError or KernelError when the feature is missing."""

    name: str
    needed_by: str
    how_to_get: str
    check: Callable[[], str]


_KERNEL = "a kernel built with"


def _link(kind: str, needed_by: str, option: str) -> _Trial:
    how = f"modprobe {kind}, or {_KERNEL} {option}"
    return _Trial(f"link {kind}", needed_by, how, lambda: checks.link(kind))


def _match(name: str, rule: str, needed_by: str) -> _Trial:
    how = f"modprobe xt_{name.split()[-1]}, or the kernel package with extra modules"
    return _Trial(f"iptables {name}", needed_by, how, lambda: checks.iptables_rule(rule))


TRIALS: Final = (
    _Trial("root or CAP_NET_ADMIN", "everything", "run as root, or allow user namespaces", checks.privilege),
    _link("veth", "machines and pods", "CONFIG_VETH"),
    _link("bridge", "machines and pods", "CONFIG_BRIDGE"),
    _link("vxlan", "the pod network between nodes", "CONFIG_VXLAN"),
    _Trial(
        "br_netfilter", "Services between pods of one node",
        f"modprobe br_netfilter, or {_KERNEL} CONFIG_BRIDGE_NETFILTER", checks.bridge_netfilter,
    ),
    _Trial("iptables-legacy", "kube-proxy in iptables mode, masquerading (or iptables-nft)",
           "install iptables and modprobe ip_tables", lambda: checks.iptables("legacy")),
    _Trial("iptables-nft", "kube-proxy in iptables mode, masquerading (or iptables-legacy)",
           "install iptables and modprobe nf_tables", lambda: checks.iptables("nft")),
    _match("match comment", "-m comment --comment x -j ACCEPT", "kube-proxy in iptables mode"),
    _match("match conntrack", "-m conntrack --ctstate INVALID -j ACCEPT", "kube-proxy in iptables mode"),
    _match("match statistic", "-m statistic --mode random --probability 0.5 -j ACCEPT",
           "choice among endpoints in iptables mode"),
    _match("match addrtype", "-m addrtype --dst-type LOCAL -j ACCEPT", "NodePorts in iptables mode"),
    _match("match mark", "-m mark --mark 0x4000/0x4000 -j ACCEPT", "kube-proxy in iptables mode"),
    _match("match recent", "-m recent --name x --rcheck --seconds 10 -j ACCEPT", "ClientIP affinity in iptables mode"),
    _match("match physdev", "-m physdev --physdev-is-bridged -j ACCEPT", "path inspection on bridges"),
    _match("target MASQUERADE", "-j MASQUERADE --random-fully", "masquerading"),
    _match("target NFQUEUE", "-j NFQUEUE --queue-num 1 --queue-bypass", "emulated delay without netem"),
    _Trial("nf_tables", "kube-proxy in nftables mode", "install nftables and modprobe nf_tables", checks.nftables),
    _Trial("ipset", "kube-proxy in IPVS mode", "modprobe ip_set ip_set_hash_ipport (and the types it names)",
           checks.ipset),
    _Trial("iptables match set", "kube-proxy in IPVS mode", "modprobe xt_set", checks.set_match),
    _Trial("ip_vs", "kube-proxy in IPVS mode", f"modprobe ip_vs, or {_KERNEL} CONFIG_IP_VS",
           lambda: checks.generic_netlink("IPVS")),
    _Trial("ip_vs_rr", "kube-proxy in IPVS mode, whose scheduler it is",
           f"modprobe ip_vs_rr, or {_KERNEL} CONFIG_IP_VS_RR", lambda: checks.ipvs_scheduler("rr")),
    _link("dummy", "kube-ipvs0, which holds Service addresses in IPVS mode", "CONFIG_DUMMY"),
    _Trial("conntrack", "Services of every mode", f"modprobe nf_conntrack, or {_KERNEL} CONFIG_NF_CONNTRACK",
           checks.conntrack),
    _Trial("qdisc netem", "emulated delay and loss (NFQUEUE stands in for it)",
           f"modprobe sch_netem, or {_KERNEL} CONFIG_NET_SCH_NETEM", lambda: checks.qdisc("netem")),
    _Trial("qdisc tbf", "emulated bandwidth", f"modprobe sch_tbf, or {_KERNEL} CONFIG_NET_SCH_TBF",
           lambda: checks.qdisc("tbf")),
    _link("wireguard", "network mode wireguard (or wireguard-go)", "CONFIG_WIREGUARD"),
    _Trial("wireguard-go", "network mode wireguard (or link wireguard)", "install wireguard-go (and modprobe tun)",
           checks.wireguard_go),
    _Trial("tun", "links to machines outside", f"modprobe tun, or {_KERNEL} CONFIG_TUN", checks.tun),
    _Trial("bird", "routes by BGP (network.routes: bgp)", f"apt-get install {bird.PACKAGE}", bird.version),
    _Trial("overlay", "containers with a root file system of their own",
           f"modprobe overlay, or {_KERNEL} CONFIG_OVERLAY_FS", checks.overlay),
    _Trial("pid namespaces", "containers that run programs", f"{_KERNEL} CONFIG_PID_NS", checks.pid_namespace),
    _Trial("packet sockets", "capture and path inspection", f"{_KERNEL} CONFIG_PACKET", checks.packet_socket),
    _Trial("eBPF", "following a packet through the kernel", "run as root on a kernel with CONFIG_BPF_SYSCALL",
           checks.ebpf),
)  # fmt: skip
"""Everything tried, in the order shown."""


def features(wanted: Collection[str] | None = None) -> list[Feature]:
    """Try everything (or the features named) and say what is there.

    Raises KernelError only if no child process can be started.
    """
    trials = [trial for trial in TRIALS if wanted is None or trial.name in wanted]
    read_end, write_end = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(read_end)
        os.close(write_end)
        raise KernelError("fork of the probe", errno=error.errno or 0) from error
    if pid == 0:
        os.close(read_end)
        _child(write_end, trials)
    os.close(write_end)
    try:
        text = _collect(read_end)
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)  # our own child, not yet waited for
        os.waitpid(pid, 0)
    found = {}
    for line in text.splitlines():
        feature = Feature(**json.loads(line))
        found[feature.name] = feature
    # The last one without an answer is the one the child hung or died in.
    return [
        found.get(trial.name) or _feature(trial, present=False, detail="the trial did not end")
        for trial in trials
    ]


def _collect(fd: int) -> str:
    """All complete lines the child writes until it ends, or until patience ends."""
    data = b""
    deadline = time.monotonic() + _PATIENCE
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            break
        data += chunk
    return data[: data.rfind(b"\n") + 1].decode()


def _child(write_end: int, trials: Iterable[_Trial]) -> None:
    """In the child: leave the machine's namespaces, try everything, write a line for each, end."""
    code = 1
    try:
        refusal = _isolate()
        for trial in trials:
            feature = _feature(trial, present=False, detail=refusal) if refusal else _try(trial)
            os.write(write_end, json.dumps(asdict(feature)).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _isolate() -> str:
    """Namespaces of our own, by a user namespace if we are not root; why not, if neither works."""
    wanted = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS
    try:
        try:
            syscalls.unshare(wanted)
        except PermissionError:
            syscalls.map_to_root(wanted)
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    except OSError as error:
        return f"no namespace can be made: {error.strerror}"
    # Else this thread would go back to its parent's namespace from the next one that it enters, and leave links there.
    netns.make_current_host()
    return ""


def _try(trial: _Trial) -> Feature:
    try:
        return _feature(trial, present=True, detail=trial.check())
    except KernelError as error:
        return _feature(trial, present=False, detail=error.stderr or str(error).rpartition(": ")[2])
    except OSError as error:
        return _feature(trial, present=False, detail=error.strerror or str(error))


def _feature(trial: _Trial, *, present: bool, detail: str) -> Feature:
    one_line = " ".join(detail.split())
    return Feature(trial.name, present, one_line, trial.needed_by, "" if present else trial.how_to_get)
