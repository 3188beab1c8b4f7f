"""Contents of a pod's /etc/resolv.conf, /etc/hosts and /etc/hostname, as kubelet writes them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.errors import Object
from controlplane.meta import objects

_LONGEST_NAME: Final = 63
_HOSTS_HEAD: Final = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class ClusterDns:
    """The cluster's resolver address ("" = none), its domain, and the node's own resolv.conf as text."""

    address: str
    domain: str
    node_resolv_conf: str = ""


def hostname(pod: Object, node_name: str) -> str:
    """The pod's host name: the node's for pods on the node's network."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return node_name
    name = str(spec.get("hostname") or objects.name(pod))
    return name[:_LONGEST_NAME].rstrip("-.")


def resolv_conf(pod: Object, dns: ClusterDns) -> str:
    """The resolver's configuration by dnsPolicy and dnsConfig."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    if policy in ("Default", "ClusterFirst", "ClusterFirstWithHostNet"):
        servers, searches, options = _parse(dns.node_resolv_conf)
    if policy.startswith("ClusterFirst") and dns.address:
        space, domain = objects.namespace(pod), dns.domain
        own = [f"{space}.svc.{domain}", f"svc.{domain}", domain]
        servers, searches, options = [dns.address], own + [s for s in searches if s not in own], ["ndots:5"]
    config = spec.get("dnsConfig") or {}
    servers = _unique([*servers, *(config.get("nameservers") or ())])
    searches = _unique([*searches, *(config.get("searches") or ())])
    for option in config.get("options") or ():
        value = option.get("value")
        text = f"{option['name']}:{value}" if value else option["name"]
        options = [known for known in options if known.partition(":")[0] != option["name"]] + [text]
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {server}" for server in servers]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if not words:
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = words[1:]
        elif words[0] == "options":
            options = words[1:]
    return servers, searches, options


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def hosts(pod: Object, addresses: Sequence[str], name: str, domain: str) -> str:
    """/etc/hosts with the pod's own lines and its hostAliases."""
    spec = pod["spec"]
    lines = []
    if not spec.get("hostNetwork"):
        subdomain = spec.get("subdomain")
        for address in addresses:
            if subdomain:
                full = f"{name}.{subdomain}.{objects.namespace(pod)}.svc.{domain}"
                lines.append(f"{address}\t{full}\t{name}\n")
            else:
                lines.append(f"{address}\t{name}\n")
    aliases = [
        f"{alias['ip']}\t" + "\t".join(alias.get("hostnames") or ()) + "\n"
        for alias in spec.get("hostAliases") or ()
    ]
    if aliases:
        lines += ["\n# Entries added by HostAliases.\n", *aliases]
    return _HOSTS_HEAD + "".join(lines)
