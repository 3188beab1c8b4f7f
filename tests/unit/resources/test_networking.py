"""NetworkPolicy, Ingress, IngressClass, ServiceCIDR, IPAddress: faults in upstream's words, updates, rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.resources import defaulted, faults, said, update_faults

from controlplane.resources.catalog import INGRESS, INGRESS_CLASS, IP_ADDRESS, NETWORK_POLICY, SERVICE_CIDR

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
STAMP = "2026-01-01T00:00:00Z"
CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def policy(*ports: Any, peers: Any = ({"podSelector": {}},), **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "x"},
        "spec": {"ingress": [{"from": list(peers), "ports": list(ports)}], **spec},
    }


def block(**ip_block: Any) -> dict[str, Any]:
    return policy(peers=[{"ipBlock": ip_block}])


PORT, FROM = "spec.ingress[0].ports[0]", "spec.ingress[0].from[0]"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (policy({"port": 80, "endPort": 90}, {"port": "http", "protocol": "SCTP"}), []),
        (block(cidr="10.0.0.0/8", **{"except": ["10.1.0.0/16"]}), []),
        (
            policy({"protocol": "ICMP"}),
            [f'{PORT}.protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"'],
        ),
        (policy({"port": 0}), [f"{PORT}.port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        (
            policy({"port": 90, "endPort": 80}),
            [f"{PORT}.endPort: Invalid value: 80: must be greater than or equal to `port`"],
        ),
        (
            policy({"port": "http", "endPort": 80}),
            [f"{PORT}.endPort: Invalid value: 80: may not be specified when `port` is non-numeric"],
        ),
        (
            policy({"endPort": 80}),
            [f"{PORT}.endPort: Invalid value: 80: may not be specified when `port` is not specified"],
        ),
        (
            policy({"port": "a--b"}),
            [f'{PORT}.port: Invalid value: "a--b": must not contain consecutive hyphens'],
        ),
        (policy(peers=[{}]), [f"{FROM}: Required value: must specify a peer"]),
        (
            policy(peers=[{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]),
            [f"{FROM}: Forbidden: may not specify both ipBlock and another peer"],
        ),
        (block(), [f"{FROM}.ipBlock.cidr: Required value"]),
        (block(cidr="10.0.0.0"), [f'{FROM}.ipBlock.cidr: Invalid value: "10.0.0.0": {CIDR}']),
        (
            block(cidr="10.0.0.0/8", **{"except": ["10.0.0.0/8", "x"]}),
            [
                f'{FROM}.ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
                f'{FROM}.ipBlock.except[1]: Invalid value: "x": {CIDR}',
            ],
        ),
        (
            policy(policyTypes=["Ingress", "Out"]),
            ['spec.policyTypes[1]: Unsupported value: "Out": supported values: "Ingress", "Egress"'],
        ),
        (
            policy(policyTypes=["Ingress", "Egress", "Egress"]),
            [
                'spec.policyTypes: Invalid value: []networking.PolicyType{"Ingress", "Egress", "Egress"}: '
                "may not specify more than two policyTypes"
            ],
        ),
        (
            policy(podSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
            [
                "spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is "
                "'In' or 'NotIn'"
            ],
        ),
    ],
)
def test_faults_of_policies(obj: Any, expected: list[str]) -> None:
    assert faults(NETWORK_POLICY, obj) == expected


def test_defaults_of_policies() -> None:
    assert defaulted(NETWORK_POLICY, {"spec": {}})["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    both = defaulted(NETWORK_POLICY, {"spec": {"egress": [{"ports": [{"port": 1}]}]}})["spec"]
    assert both["policyTypes"] == ["Ingress", "Egress"]
    assert both["egress"][0]["ports"][0]["protocol"] == "TCP"


def backend(**service: Any) -> dict[str, Any]:
    return {"service": {"name": "web", "port": {"number": 80}, **service}}


def rule(path: Any = None, host: str = "a.b") -> dict[str, Any]:
    path = {"path": "/", "pathType": "Prefix", "backend": backend(), **(path or {})}
    return {"metadata": {"name": "x"}, "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]}}


def default_backend(given: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": {"defaultBackend": given}}


PATH, BACK = "spec.rules[0].http.paths[0]", "spec.defaultBackend"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (rule(), []),
        (rule(host="*.a.b"), []),
        (
            {"spec": {}},
            [
                "spec: Invalid value: []networking.IngressRule(nil): either `defaultBackend` or `rules` must be "
                "specified"
            ],
        ),
        (
            rule(host="1.2.3.4"),
            ['spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address'],
        ),
        (
            rule(host="a.*"),
            [
                "spec.rules[0].host: Invalid value: \"a.*\": a wildcard DNS-1123 subdomain must start with '*.', "
                "followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or "
                "'.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is "
                "'\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ],
        ),
        (rule(host="A"), [f'spec.rules[0].host: Invalid value: "A": {SUBDOMAIN}']),
        (rule({"pathType": None}), [f"{PATH}.pathType: Required value: pathType must be specified"]),
        (
            rule({"pathType": "Regex"}),
            [
                f'{PATH}.pathType: Unsupported value: "Regex": supported values: "Exact", '
                '"ImplementationSpecific", "Prefix"'
            ],
        ),
        (rule({"path": "x"}), [f'{PATH}.path: Invalid value: "x": must be an absolute path']),
        (rule({"path": ""}), [f'{PATH}.path: Invalid value: "": must be an absolute path']),
        (rule({"path": "/a//b"}), [f"{PATH}.path: Invalid value: \"/a//b\": must not contain '//'"]),
        (rule({"path": "/a/.."}), [f"{PATH}.path: Invalid value: \"/a/..\": cannot end with '/..'"]),
        (rule({"path": "", "pathType": "ImplementationSpecific"}), []),
        (
            {"metadata": {"name": "x"}, "spec": {"rules": [{"http": {"paths": []}}]}},
            ["spec.rules[0].http.paths: Required value"],
        ),
        (default_backend({}), [f'{BACK}: Invalid value: "": resource or service backend is required']),
        (
            default_backend({**backend(), "resource": {"kind": "B", "name": "b"}}),
            [f'{BACK}: Invalid value: "": cannot set both resource and service backends'],
        ),
        (
            default_backend({"resource": {"kind": "", "name": "a/b"}}),
            [
                f"{BACK}.resource.kind: Required value",
                f"{BACK}.resource.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
        (default_backend(backend(name="")), [f"{BACK}.service.name: Required value"]),
        (
            default_backend(backend(port={"name": "http", "number": 80})),
            [f'{BACK}: Invalid value: "": cannot set both port name & port number'],
        ),
        (default_backend(backend(port={})), [f"{BACK}: Required value: port name or number is required"]),
        (
            default_backend(backend(port={"number": 70000})),
            [f"{BACK}.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        (
            {"spec": {"defaultBackend": backend(), "tls": [{"hosts": ["A"], "secretName": "B"}]}},
            [
                f'spec.tls[0].hosts[0]: Invalid value: "A": {SUBDOMAIN}',
                f'spec.tls[0].secretName: Invalid value: "B": {SUBDOMAIN}',
            ],
        ),
        (
            {"spec": {"defaultBackend": backend(), "ingressClassName": "A"}},
            [f'spec.ingressClassName: Invalid value: "A": {SUBDOMAIN}'],
        ),
    ],
)
def test_faults_of_ingresses(obj: Any, expected: list[str]) -> None:
    assert faults(INGRESS, obj) == expected


def test_annotation_and_field_agree_in_new_ingresses() -> None:
    obj = default_backend(backend())
    obj["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "old"}
    obj["spec"]["ingressClassName"] = "new"
    assert said(INGRESS.validate_create(obj)) == [
        'annotations.kubernetes.io/ingress.class: Invalid value: "old": must match `ingressClassName` when both are '
        "specified"
    ]
    obj["spec"]["ingressClassName"] = "old"
    assert not INGRESS.validate_create(obj)


def test_status_of_ingresses() -> None:
    bad = {"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "1.2.3.4"}]}}}
    assert said(INGRESS.validate_status(bad, {})) == [
        'status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or '
        "2001:db8::ffff)",
        'status.loadBalancer.ingress[1].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
    ]


def test_rows_of_ingresses() -> None:
    obj = {
        "metadata": {"name": "x", "creationTimestamp": STAMP},
        "spec": {"rules": [{"host": host} for host in "abcde"], "tls": [{}], "ingressClassName": "nginx"},
        "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}, {"ip": "10.0.0.1"}]}},
    }
    assert INGRESS.row is not None
    row = INGRESS.row(obj, NOW)
    assert row == ("x", "nginx", "a,b,c + 2 more...", "10.0.0.1,lb.example.com", "80, 443", "60s")
    bare = INGRESS.row({"metadata": {"name": "x", "creationTimestamp": STAMP}, "spec": {}}, NOW)
    assert bare == ("x", "<none>", "*", "", "80", "60s")


def ingress_class(controller: str = "example.com/x", **parameters: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"controller": controller}
    if parameters:
        spec["parameters"] = {"kind": "K", "name": "n", **parameters}
    return {"metadata": {"name": "x", "creationTimestamp": STAMP}, "spec": spec}


WHERE = "spec.parameters"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (ingress_class(), []),
        (ingress_class(apiGroup="a.b"), []),
        (ingress_class(""), ["spec.controller: Required value"]),
        (
            ingress_class("nginx"),
            [
                'spec.controller: Invalid value: "nginx": must be a domain-prefixed path (such as "acme.io/foo")'
            ],
        ),
        (
            ingress_class(scope="Namespace"),
            [f"{WHERE}.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        ),
        (
            ingress_class(namespace="a"),
            [f"{WHERE}.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        ),
        (
            ingress_class(scope="All"),
            [f'{WHERE}.scope: Unsupported value: "All": supported values: "Cluster", "Namespace"'],
        ),
    ],
)
def test_faults_of_ingress_classes(obj: Any, expected: list[str]) -> None:
    assert faults(INGRESS_CLASS, obj) == expected


def test_the_controller_of_a_class_stays() -> None:
    assert update_faults(INGRESS_CLASS, ingress_class("a.b/c"), ingress_class()) == [
        'spec.controller: Invalid value: "a.b/c": field is immutable'
    ]
    assert INGRESS_CLASS.row is not None
    assert INGRESS_CLASS.row(ingress_class(apiGroup="g.h"), NOW)[2] == "K.g.h/n"


def cidr(*cidrs: str) -> dict[str, Any]:
    return {"metadata": {"name": "x", "creationTimestamp": STAMP}, "spec": {"cidrs": list(cidrs)}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (cidr("10.0.0.0/24", "fd00::/112"), []),
        (cidr(), ["spec.cidrs: Required value: at least one CIDR required"]),
        (cidr("10.0.0.0"), [f'spec.cidrs[0]: Invalid value: "10.0.0.0": {CIDR}']),
        (
            cidr("10.0.0.0/24", "10.1.0.0/24"),
            [
                'spec.cidrs: Invalid value: []string{"10.0.0.0/24", "10.1.0.0/24"}: may specify no more than one IP '
                "for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            ],
        ),
        (
            cidr("1.0.0.0/8", "2.0.0.0/8", "3.0.0.0/8"),
            [
                'spec.cidrs: Invalid value: []string{"1.0.0.0/8", "2.0.0.0/8", "3.0.0.0/8"}: may only hold up to 2 '
                "values"
            ],
        ),
    ],
)
def test_faults_of_service_cidrs(obj: Any, expected: list[str]) -> None:
    assert faults(SERVICE_CIDR, obj) == expected


def test_ranges_stay_but_may_become_two() -> None:
    assert update_faults(SERVICE_CIDR, cidr("10.0.0.0/24", "fd00::/64"), cidr("10.0.0.0/24")) == []
    assert update_faults(SERVICE_CIDR, cidr("10.1.0.0/24"), cidr("10.0.0.0/24")) == [
        'spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable'
    ]
    assert update_faults(SERVICE_CIDR, cidr("10.0.0.0/24"), cidr("10.0.0.0/24", "fd00::/64")) == [
        'spec.cidrs: Invalid value: []string{"10.0.0.0/24"}: field is immutable'
    ]
    assert SERVICE_CIDR.row is not None
    assert SERVICE_CIDR.row(cidr("a", "b"), NOW) == ("x", "a,b", "60s")


def test_ip_addresses() -> None:
    parent = {"resource": "services", "namespace": "default", "name": "web"}
    obj = {"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}}
    assert faults(IP_ADDRESS, obj) == []
    assert faults(IP_ADDRESS, {"spec": {}}) == ["spec.parentRef: Required value"]
    assert faults(IP_ADDRESS, {"spec": {"parentRef": {"group": "A"}}}) == [
        f'spec.parentRef.group: Invalid value: "A": {SUBDOMAIN}',
        "spec.parentRef.resource: Required value",
        "spec.parentRef.name: Required value",
    ]
    assert IP_ADDRESS.validate_name is not None
    assert not IP_ADDRESS.validate_name("fd00::1")
    assert IP_ADDRESS.validate_name("fd00:0::1") == ['must be in canonical form ("fd00::1")']
    assert IP_ADDRESS.row is not None
    assert IP_ADDRESS.row(obj, NOW) == ("10.0.0.1", "services/default/web")
    grouped = {
        "metadata": {"name": "x"},
        "spec": {"parentRef": {"group": "G.h", "resource": "r", "name": "n"}},
    }
    assert IP_ADDRESS.row(grouped, NOW) == ("x", "r.g.h/n")
    changed = {**obj, "spec": {"parentRef": {**parent, "name": "b"}}}
    assert len(update_faults(IP_ADDRESS, changed, obj)) == 1
