"""A container's environment: service links, envFrom, env with references and $(VAR). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.errors import Object
from controlplane.meta import objects
from controlplane.meta.quantity import Quantity
from netkit.kernel.container import DEFAULT_PATH
from netkit.node.podspec.references import ConfigError, Reference, Sources

_NAME = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


@dataclass(frozen=True, slots=True)
class PodPlace:
    """Where the pod runs, for downward fields. `capacity` is the node's."""

    node_name: str
    host_address: str
    addresses: tuple[str, ...]
    hostname: str
    capacity: Mapping[str, str]


def environment(
    pod: Object,
    container: Object,
    place: PodPlace,
    sources: Sources,
    services: Iterable[Object],
    image_env: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment. Raises ConfigError in kubelet's words."""  # fmt: skip
    namespace = objects.namespace(pod)
    result = {"PATH": DEFAULT_PATH, "HOSTNAME": place.hostname, "HOME": "/root", **image_env}
    links = pod["spec"].get("enableServiceLinks", True)
    service_env = service_links(services, namespace, links is not False)
    declared: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        declared |= _from_source(source, sources)
    for variable in container.get("env") or ():
        value = _value(pod, container, variable, place, sources, {**service_env, **declared})
        if value is not None:
            declared[variable["name"]] = value
    return result | service_env | declared


def _from_source(source: Object, sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    kind, reference = (
        ("configmap", source["configMapRef"])
        if source.get("configMapRef")
        else ("secret", source.get("secretRef") or {})
    )
    data = sources.data(
        Reference(kind, reference.get("name", "")), bool(reference.get("optional")), binary=False
    )
    return {
        prefix + key: value.decode("utf-8", "replace")
        for key, value in sorted(data.items())
        if _NAME.match(prefix + key)
    }


def _value(
    pod: Object,
    container: Object,
    variable: Object,
    place: PodPlace,
    sources: Sources,
    known: Mapping[str, str],
) -> str | None:
    origin = variable.get("valueFrom")
    if not origin:
        return expand(variable.get("value") or "", known)
    if "fieldRef" in origin:
        return field_value(pod, origin["fieldRef"].get("fieldPath", ""), place)
    if "resourceFieldRef" in origin:
        return resource_value(pod, container, origin["resourceFieldRef"], place)
    for name, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
        if name in origin:
            wanted = origin[name]
            optional = bool(wanted.get("optional"))
            reference = Reference(kind, wanted.get("name", ""))
            found = sources.value(reference, wanted.get("key", ""), optional, binary=False)
            return None if found is None else found.decode("utf-8", "replace")
    return ""


def field_value(pod: Object, path: str, place: PodPlace) -> str:
    """A downward field. Raises ConfigError for one that is not supported."""
    if subscript := _SUBSCRIPT.match(path):
        values = objects.labels(pod) if subscript[1] == "labels" else objects.annotations(pod)
        return str(values.get(subscript[2], ""))
    address = place.addresses[0] if place.addresses else ""
    simple = {
        "metadata.name": objects.name(pod),
        "metadata.namespace": objects.namespace(pod),
        "metadata.uid": objects.uid(pod),
        "metadata.labels": _lines(objects.labels(pod)),
        "metadata.annotations": _lines(objects.annotations(pod)),
        "spec.nodeName": place.node_name,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.hostIP": place.host_address,
        "status.hostIPs": place.host_address,
        "status.podIP": address,
        "status.podIPs": ",".join(place.addresses),
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(simple[path])


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(values.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Object, container: Object, wanted: Mapping[str, Any], place: PodPlace) -> str:
    """A container's request or limit in units of the divisor, rounded up; a missing limit is the node's size."""
    name = wanted.get("containerName")
    everyone = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]
    target = next((c for c in everyone if c["name"] == name), container) if name else container
    kind, _, resource = str(wanted.get("resource", "")).partition(".")
    if kind not in ("limits", "requests"):
        raise ConfigError(f"unsupported container resource : {wanted.get('resource')}")
    resources = target.get("resources") or {}
    default = place.capacity.get(resource, "0") if kind == "limits" else "0"
    amount = Quantity.parse(str((resources.get(kind) or {}).get(resource, default)))
    divisor = Quantity.parse(str(wanted.get("divisor") or "1"))
    return str(-(-amount.nanos // (divisor.nanos or Quantity.parse("1").nanos)))


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known; `$$` is one `$`; anything else stays."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return known.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^()]*)\)", replaced, text)


def service_links(services: Iterable[Object], namespace: str, links: bool) -> dict[str, str]:
    """Variables for the Services of the namespace, and for default/kubernetes in any case."""
    result: dict[str, str] = {}
    for service in services:
        master = objects.namespace(service) == "default" and objects.name(service) == "kubernetes"
        if not master and (not links or objects.namespace(service) != namespace):
            continue
        address = service["spec"].get("clusterIP") or ""
        ports = service["spec"].get("ports") or []
        if address in ("", "None") or not ports:
            continue
        result |= _service_variables(objects.name(service), address, ports)
    return result


def _service_variables(name: str, address: str, ports: list[Object]) -> dict[str, str]:
    prefix = name.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    first = ports[0]
    result = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(first["port"]),
    }
    for port in ports:
        if port.get("name"):
            result[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    for port in ports:
        protocol = str(port.get("protocol") or "TCP")
        url = f"{protocol.lower()}://{host}:{port['port']}"
        if port is first:
            result[f"{prefix}_PORT"] = url
        start = f"{prefix}_PORT_{port['port']}_{protocol}"
        result |= {
            start: url,
            f"{start}_PROTO": protocol.lower(),
            f"{start}_PORT": str(port["port"]),
            f"{start}_ADDR": address,
        }
    return result
