"""Rules for a whole PodSpec and for pod templates (upstream's `ValidatePodSpec`, v1.32). Pure."""

from __future__ import annotations

import re

import orjson

from controlplane.resources.metadata import validate_annotations
from controlplane.resources.podspec.containers import validate_containers
from controlplane.resources.podspec.scheduling import (
    validate_affinity,
    validate_tolerations,
    validate_topology_spread,
)
from controlplane.resources.podspec.security import validate_pod_security
from controlplane.resources.podspec.volumes import validate_volumes
from controlplane.resources.rules import MAX_INT32, Field

DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
RESTART_POLICIES = ("Always", "OnFailure", "Never")

_NAMESERVERS_MAX = 3
_SEARCHES_MAX = 32

_REMEMBERED = 256
_REMEMBERED_BYTES = 16 * 1024
_faultless: dict[bytes, None] = {}
"""Encoded specs that had no fault, the oldest first. All pods of a template have one spec, and most updates of a pod
leave it as it is; to validate one takes 0.5 ms, to recognise it 15 us."""
_ACCOUNT_VOLUME = re.compile(rb'"kube-api-access-[a-z0-9]{5}"')
_ANY_ACCOUNT_VOLUME = b'"kube-api-access-\0"'
"""In place of a name in an encoded spec; JSON holds no such byte, so nothing else can be taken for it."""


def validate_template(template: Field) -> None:
    """A pod template: labels, annotations, spec."""
    # Upstream leaves `metadata` out of these paths.
    meta = Field(template["metadata"].value, template.path, template.causes)
    meta["labels"].labels()
    validate_annotations(meta["annotations"])
    validate_spec(template["spec"])
    template["spec"]["ephemeralContainers"].absent("ephemeral containers not allowed in pod template")


def validate_spec(spec: Field) -> None:
    """Everything below `spec`."""
    encoded = _alike(orjson.dumps(spec.value))
    if encoded in _faultless:
        return
    known = len(spec.causes)
    _validate(spec)
    if len(spec.causes) == known and len(encoded) <= _REMEMBERED_BYTES:
        _faultless[bytes(memoryview(encoded))] = None  # cut to size, see `store.events`
        if len(_faultless) > _REMEMBERED:
            del _faultless[next(iter(_faultless))]


def _alike(encoded: bytes) -> bytes:
    """The same for specs that differ in nothing but the name admission made up for the token's volume.

    With two such names in one spec each counts: that they differ, or do not, may be what is right or wrong.
    """
    names = set(_ACCOUNT_VOLUME.findall(encoded))
    return encoded.replace(names.pop(), _ANY_ACCOUNT_VOLUME) if len(names) == 1 else encoded


def _validate(spec: Field) -> None:
    volumes = validate_volumes(spec["volumes"])
    validate_containers(spec, volumes)
    spec["restartPolicy"].required().one_of(*RESTART_POLICIES)
    _dns(spec)
    spec["nodeSelector"].labels()
    validate_pod_security(spec["securityContext"])
    for secret in spec["imagePullSecrets"]:
        secret["name"].required()
    validate_affinity(spec["affinity"])
    for gate in spec["readinessGates"]:
        gate["conditionType"].required().qualified_name()
    _scheduling_gates(spec)
    validate_topology_spread(spec["topologySpreadConstraints"])
    spec["serviceAccountName"].dns_subdomain()
    spec["nodeName"].dns_subdomain()
    spec["activeDeadlineSeconds"].between(1, MAX_INT32)
    spec["terminationGracePeriodSeconds"].required()
    spec["hostname"].dns_label()
    spec["subdomain"].dns_label()
    validate_tolerations(spec["tolerations"])
    for alias in spec["hostAliases"]:
        alias["ip"].required().ip()
        for hostname in alias["hostnames"]:
            alias["hostnames"].of(hostname.text).dns_subdomain()
    spec["priorityClassName"].dns_subdomain()
    spec["runtimeClassName"].dns_subdomain()
    spec["preemptionPolicy"].one_of("PreemptLowerPriority", "Never")
    spec["os"]["name"].one_of("linux", "windows")
    for _, amount in spec["overhead"].entries():
        amount.quantity()


def _dns(spec: Field) -> None:
    policy, config = spec["dnsPolicy"], spec["dnsConfig"]
    policy.required().one_of(*DNS_POLICIES)
    if policy.value == "None":
        if config.value is None:
            config.required("must provide `dnsConfig` when `dnsPolicy` is None")
        else:
            config["nameservers"].required(
                "must provide at least one DNS nameserver when `dnsPolicy` is None"
            )
    if len(config["nameservers"]) > _NAMESERVERS_MAX:
        config["nameservers"].invalid(f"must not have more than {_NAMESERVERS_MAX} nameservers")
    for server in config["nameservers"]:
        server.ip()
    if len(config["searches"]) > _SEARCHES_MAX:
        config["searches"].invalid(f"must not have more than {_SEARCHES_MAX} search paths")
    for search in config["searches"]:
        # A trailing dot makes it absolute, a single dot stands for the root.
        search.of(search.text.removesuffix(".") or None).dns_subdomain()
    for option in config["options"]:
        option["name"].required("must not be empty")


def _scheduling_gates(spec: Field) -> None:
    names: set[str] = set()
    for gate in spec["schedulingGates"]:
        name = gate["name"]
        name.required().qualified_name()
        if name.text in names:
            gate.of(name.text).duplicate()
        names.add(name.text)
