"""Rules for containers: names, images, ports, resources, and which kind of container may have what. Pure."""

from __future__ import annotations

from controlplane.meta.names import port_name
from controlplane.meta.quantity import Quantity
from controlplane.resources.fieldpath import duplicate, not_found
from controlplane.resources.podspec.environment import validate_environment
from controlplane.resources.podspec.handlers import validate_lifecycle, validate_liveness, validate_readiness
from controlplane.resources.podspec.security import validate_container_security
from controlplane.resources.podspec.volumes import validate_mounts
from controlplane.resources.rules import Field

PULL_POLICIES = ("Always", "IfNotPresent", "Never")

_STANDARD_RESOURCES = ("cpu", "ephemeral-storage", "memory")
_NOT_IN_EPHEMERAL = (
    "ports", "resources", "resizePolicy", "restartPolicy", "livenessProbe", "readinessProbe", "startupProbe",
    "lifecycle",
)  # fmt: skip
_IN_EPHEMERAL = "cannot be set for an Ephemeral Container"
_ONLY_IN_SIDECARS = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")


def validate_containers(spec: Field, volumes: set[str]) -> None:
    """All containers of a pod; `volumes` are the names mounts may refer to."""
    containers, init_containers = spec["containers"], spec["initContainers"]
    containers.required()
    names: set[str] = set()
    for container in containers:
        _common(container, volumes, names)
        if container["restartPolicy"].value is not None:
            container["restartPolicy"].forbidden("may not be set for non-init containers")
        _hooks_and_probes(container)
    host_network = bool(spec["hostNetwork"].value)
    _host_ports(containers, host_network=host_network)
    for container in init_containers:
        _common(container, volumes, names)
        container["restartPolicy"].one_of("Always")
        if container["restartPolicy"].value == "Always":
            _hooks_and_probes(container)
        else:
            for name in _ONLY_IN_SIDECARS:
                container[name].absent("may not be set for init containers without restartPolicy=Always")
    _host_ports(init_containers, host_network=host_network)
    _ephemeral(spec["ephemeralContainers"], volumes, names)


def _ephemeral(containers: Field, volumes: set[str], names: set[str]) -> None:
    """`names` are those of all other containers."""
    others = frozenset(names)
    for container in containers:
        _common(container, volumes, names)
        target = container["targetContainerName"]
        if target.present and target.text not in others:
            target.fail(not_found(target.path, target.text))
        for name in _NOT_IN_EPHEMERAL:
            container[name].absent(_IN_EPHEMERAL)
        for mount in container["volumeMounts"]:
            mount["subPath"].absent(_IN_EPHEMERAL)
            mount["subPathExpr"].absent(_IN_EPHEMERAL)


def _common(container: Field, volumes: set[str], names: set[str]) -> None:
    name, image = container["name"], container["image"]
    name.required().dns_label()
    image.required()
    if image.text != image.text.strip():
        image.invalid("must not have leading or trailing whitespace")
    container["terminationMessagePolicy"].required().one_of("FallbackToLogsOnError", "File")
    _ports(container["ports"])
    validate_environment(container)
    validate_mounts(container["volumeMounts"], volumes)
    container["imagePullPolicy"].required().one_of(*PULL_POLICIES)
    validate_resources(container["resources"])
    validate_container_security(container["securityContext"])
    if name.present and name.text in names:
        name.duplicate()
    names.add(name.text)


def _hooks_and_probes(container: Field) -> None:
    validate_lifecycle(container["lifecycle"])
    validate_liveness(container["livenessProbe"])
    validate_readiness(container["readinessProbe"])
    validate_liveness(container["startupProbe"])


def _ports(ports: Field) -> None:
    names: set[str] = set()
    for port in ports:
        name = port["name"]
        if name.present and not port_name(name.text):
            if name.text in names:
                name.duplicate()
            names.add(name.text)
        else:
            name.check(port_name)
        if port["containerPort"].value in (None, 0):
            port["containerPort"].of(None).required()
        else:
            port["containerPort"].port_number()
        if port["hostPort"].value:
            port["hostPort"].port_number()
        port["hostIP"].ip()
        port["protocol"].required().one_of("SCTP", "TCP", "UDP")


def _host_ports(containers: Field, *, host_network: bool) -> None:
    """A host port belongs to one container; on the host's network it is the container's port itself."""
    taken: set[str] = set()
    for container in containers:
        for port in container["ports"]:
            host_port, number = port["hostPort"], port["containerPort"]
            if not host_port.value:
                continue
            if host_network and host_port.value != number.value:
                number.invalid("must match `hostPort` when `hostNetwork` is true")
            claim = f"{port['protocol'].text}/{port['hostIP'].text}/{host_port.value}"
            if claim in taken:
                host_port.fail(duplicate(host_port.path, claim))
            taken.add(claim)


def validate_resources(resources: Field) -> None:
    """Amounts are not negative, requests not above limits."""
    limits: dict[str, Quantity] = {}
    for name, amount in resources["limits"].entries():
        _resource_name(amount.of(name))
        quantity = amount.quantity()
        if quantity is not None:
            limits[name] = quantity
    requests = resources["requests"]
    for name, amount in requests.entries():
        _resource_name(amount.of(name))
        quantity = amount.quantity()
        if quantity is None:
            continue
        limit = limits.get(name)
        if not _may_be_overcommitted(name):
            if limit is None:
                resources["limits"].of(None).required("Limit must be set for non overcommitable resources")
            elif quantity != limit:
                requests.of(str(quantity)).invalid(f"must be equal to {name} limit of {limit}")
        elif limit is not None and quantity > limit:
            requests.of(str(quantity)).invalid(f"must be less than or equal to {name} limit of {limit}")


def _may_be_overcommitted(name: str) -> bool:
    native = "/" not in name or "kubernetes.io/" in name
    return native and not name.startswith("hugepages-")


def _resource_name(name: Field) -> None:
    name.qualified_name()
    text = name.text
    if "/" not in text and text not in _STANDARD_RESOURCES and not text.startswith("hugepages-"):
        name.invalid("must be a standard resource for containers")
