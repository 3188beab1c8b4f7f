"""The single trials of `probe`: each tries one feature in the calling thread's namespaces, which are thrown
away.

Called by `probe` in its child process only: they leave links, rules and mounts behind there. Each returns a
detail for people, or raises OSError or KernelError with the reason.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from netkit.kernel import rtnl, syscalls, wireguard_program
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.ipset import IPSet, SetType, set_create
from netkit.kernel.ipvs import IPVS, server_add
from netkit.kernel.ipvs_values import ServerKey, Transport, VirtualServer
from netkit.kernel.netns import Namespace
from netkit.kernel.process import Completed, run
from netkit.kernel.rtnl import Message, Rtnl

_TIMEOUT: Final = 3.0
_SYS_BPF: Final = {"x86_64": 321, "aarch64": 280}
_ENVIRONMENT: Final = {
    "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
    "XTABLES_LOCKFILE": "/dev/null",
}


def privilege() -> str:
    """Whether the links of a fresh namespace can be changed."""
    with _here() as links:
        links.apply(rtnl.link_up("lo"))
    mapped = Path("/proc/self/uid_map").read_text().split()
    return "root" if mapped[:2] == ["0", "0"] else "root of a user namespace"


def link(kind: str) -> str:
    """Make a link of the kind."""
    with _here() as links:
        if kind == "veth":
            links.apply(rtnl.veth("probe-a", "probe-b"))
        elif kind == "vxlan":
            links.apply(rtnl.plain_link("probe-under", "bridge", up=True))
            under = links.link_index("probe-under") or 0
            links.apply(rtnl.vxlan("probe-vxlan", vni=1, local=IPv4Address("192.0.2.1"), device=under))
        else:
            links.apply(rtnl.plain_link(f"probe-{kind}"[:15], kind))
    return ""


def bridge_netfilter() -> str:
    """Switch bridge-nf-call on."""
    path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not path.exists():
        raise Unsupported("bridge-nf-call-iptables", stderr="the kernel does not have the setting")
    path.write_text("1")
    return ""


def iptables(variant: str) -> str:
    """Read the nat table with the programs of a variant; their version."""
    program = f"iptables-{variant}"
    _command([program, "-t", "nat", "-S"])
    return _command([program, "--version"]).stdout.decode().strip()


def iptables_rule(rule: str) -> str:
    """Add a rule to a chain of the nat table that is called from POSTROUTING."""
    program = _iptables_program()
    _command([f"{program}-restore", "--noflush"], f"*nat\n-A POSTROUTING {rule}\nCOMMIT\n")
    return program


def nftables() -> str:
    """Load a table with NAT, a verdict map and a random choice, as kube-proxy's has."""
    text = """
    table ip probe {
        map services { type ipv4_addr . inet_proto . inet_service : verdict; }
        chain one { meta l4proto tcp dnat to 192.0.2.1:80; }
        chain pick { numgen random mod 2 vmap { 0 : goto one, 1 : goto one }; }
        chain out { type nat hook postrouting priority 100; masquerade; }
    }
    """
    _command(["nft", "-f", "-"], text)
    return _command(["nft", "--version"]).stdout.decode().strip()


def ipset() -> str:
    """Ask for the types of sets that kube-proxy's IPVS mode uses."""
    with _namespace() as here, IPSet(here) as sets:
        sets.headers()
        missing = [kind.module for kind in SetType if not sets.has_type(kind)]
    if missing:
        raise Unsupported("ipset", stderr=f"the kernel has no {', '.join(missing)}")
    return ""


def set_match() -> str:
    """Add a rule that matches a set."""
    with _namespace() as here, IPSet(here) as sets:
        sets.apply(set_create("probe", SetType.HASH_IP_PORT))
    return iptables_rule("-m set --match-set probe dst,dst -j ACCEPT")


def ipvs_scheduler(scheduler: str) -> str:
    """Make a virtual server with the scheduler."""
    with _namespace() as here, IPVS(here) as balancer:
        key = ServerKey(IPv4Address("192.0.2.1"), 80, Transport.TCP)
        balancer.apply(server_add(VirtualServer(key, scheduler)))
    return ""


def generic_netlink(family: str) -> str:
    """Ask for a generic netlink family by name."""
    name = family.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), 2) + name + b"\0" * (-len(name) % 4)
    body = struct.pack("=BBH", 3, 2, 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as control:
        control.bind((0, 0))
        control.send(struct.pack("=IHHII", 16 + len(body), 16, 1, 1, 0) + body)
        answer = control.recv(1 << 16)
    if struct.unpack_from("=IH", answer)[1] == 2:
        code = -struct.unpack_from("=i", answer, 16)[0]
        raise Unsupported(
            f"genl family {family}",
            errno=code,
            stderr="the kernel does not have it" if code == errno.ENOENT else "",
        )
    return ""


def conntrack() -> str:
    """Look for connection tracking's settings in this namespace."""
    path = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    if not path.exists():
        raise Unsupported("conntrack", stderr="the kernel does not have it")
    return f"nf_conntrack_max {path.read_text().strip()}"


def qdisc(kind: str) -> str:
    """Ask for a queueing discipline; a complaint about its missing parameters means that it is there."""
    with _here() as links:
        name = f"probe-{kind}"
        links.apply(rtnl.plain_link(name, "bridge", up=True))
        text = kind.encode() + b"\0"
        body = struct.pack("=BxHiIII", 0, 0, links.link_index(name) or 0, 0x10000, 0xFFFFFFFF, 0)
        body += struct.pack("=HH", 4 + len(text), 1) + text + b"\0" * (-len(text) % 4)
        request = Message(36, 0x600, body, f"tc qdisc add dev {name} root {kind}")
        links.apply(request.allowing(errno.EINVAL))
    return ""


def tun() -> str:
    """Make a TAP device; it goes with its descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"probe-tap", 0x1002))
    finally:
        os.close(fd)
    return ""


def wireguard_go() -> str:
    """Ask the program for its version, and look for TUN devices."""
    return wireguard_program.available()


def overlay() -> str:
    """Mount an overlay whose upper layer is a tmpfs, as containers get it."""
    place = "/tmp"
    syscalls.mount("tmpfs", place, "tmpfs")
    for part in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{place}/{part}")
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    syscalls.mount("overlay", f"{place}/merged", "overlay", data=options)
    return ""


def pid_namespace() -> str:
    """Start a process as number 1 of its own PID namespace."""
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise Unsupported("unshare(CLONE_NEWPID)", stderr="the child is not process 1")
    return ""


def packet_socket() -> str:
    """Open a packet socket."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).close()
    return ""


def ebpf() -> str:
    """Load a program of two instructions (`return 0`) of the socket filter type."""
    number = _SYS_BPF.get(os.uname().machine)
    if number is None:
        raise Unsupported("bpf", stderr=f"not tried on {os.uname().machine}")
    program = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", 1, 2, ctypes.addressof(program), ctypes.addressof(licence)) + bytes(96)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    fd = syscalls.raw_syscall(number, 5, ctypes.addressof(buffer), len(attributes))
    os.close(fd)
    return ""


@cache
def _iptables_program() -> str:
    for variant in ("legacy", "nft"):
        try:
            iptables(variant)
        except KernelError:
            continue
        return f"iptables-{variant}"
    raise Unsupported("iptables", stderr="neither iptables-legacy nor iptables-nft works")


def _command(argv: Sequence[str], text: str = "") -> Completed:
    path = shutil.which(argv[0], path=_ENVIRONMENT["PATH"])
    if path is None:
        raise Unsupported(argv[0], stderr=f"{argv[0]} is not installed")
    return run([path, *argv[1:]], input=text.encode(), timeout=_TIMEOUT, env=_ENVIRONMENT, check=True)


def _here() -> Rtnl:
    """Netlink of the namespace the calling thread is in."""
    with _namespace() as here:
        return Rtnl(here)


def _namespace() -> Namespace:
    """The namespace the calling thread is in."""
    return Namespace("probe", os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
