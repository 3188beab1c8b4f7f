"""Namespace, Node, ConfigMap, Secret, Endpoints, Event; and the small kinds of the other groups."""

import base64

import pytest
from support.resources import defaulted, faults, said, update_faults

from controlplane.resources.catalog import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    LEASE,
    NAMESPACE,
    NODE,
    SECRET,
)
from controlplane.resources.core.config import DATA_MAX


def b64(text):
    return base64.b64encode(text.encode()).decode()


class TestNamespace:
    def test_create(self):
        obj = defaulted(NAMESPACE, {"metadata": {"name": "lab", "labels": {"a": "b"}}})
        NAMESPACE.prepare_create(obj)
        assert obj == {
            "metadata": {"name": "lab", "labels": {"a": "b", "kubernetes.io/metadata.name": "lab"}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }

    def test_only_finalize_changes_the_finalizers(self):
        new, old = {"spec": {}}, {"spec": {"finalizers": ["kubernetes"]}}
        NAMESPACE.prepare_update(new, old)
        assert new == old

    def test_finalizers(self):
        assert faults(NAMESPACE, {"metadata": {}, "spec": {"finalizers": ["kubernetes", "a.b/c"]}}) == []
        assert faults(NAMESPACE, {"metadata": {}, "spec": {"finalizers": ["mine"]}}) == [
            'spec.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully '
            "qualified"
        ]

    @pytest.mark.parametrize(
        ("meta", "phase", "expected"),
        [
            ({}, "Active", []),
            ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, "Terminating", []),
            (
                {},
                "Terminating",
                [
                    "status.phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` "
                    "is empty"
                ],
            ),
            (
                {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                "Active",
                [
                    "status.phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` "
                    "is not empty"
                ],
            ),
        ],
    )
    def test_phase(self, meta, phase, expected):
        obj = {"metadata": meta, "status": {"phase": phase}}
        assert said(NAMESPACE.validate_status(obj, obj)) == expected


def node(**spec):
    return {"metadata": {"name": "n1"}, "spec": spec}


class TestNode:
    def test_defaults(self):
        obj = node(podCIDR="10.244.1.0/24")
        obj["status"] = {"capacity": {"cpu": "2000m", "memory": "4096Mi"}}
        assert defaulted(NODE, obj) == {
            "metadata": {"name": "n1"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
            "status": {
                "capacity": {"cpu": "2", "memory": "4Gi"},
                "allocatable": {"cpu": "2", "memory": "4Gi"},
            },
        }

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ({"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}]}, []),
            (
                {"taints": [{"key": "a", "effect": "Never"}]},
                [
                    'spec.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", '
                    '"PreferNoSchedule", "NoExecute"'
                ],
            ),
            ({"taints": [{"effect": "NoSchedule"}]}, ["spec.taints[0].key: Required value"]),
            (
                {"podCIDR": "10.0.0.1"},
                [
                    'spec.podCIDRs[0]: Invalid value: "10.0.0.1": must be a valid CIDR value, '
                    "(e.g. 10.9.8.0/24 or 2001:db8::/64)"
                ],
            ),
        ],
    )
    def test_rules(self, spec, expected):
        assert faults(NODE, node(**spec)) == expected

    def test_a_taint_is_unique_by_key_and_effect(self):
        taint = {"key": "a", "value": "x", "effect": "NoSchedule"}
        (fault,) = faults(NODE, node(taints=[taint, {**taint, "value": "y"}]))
        assert fault.startswith("spec.taints[1]: Duplicate value: ")
        assert fault.endswith("taints must be unique by key and effect pair")

    def test_the_pod_range_is_set_once(self):
        first, second = node(podCIDR="10.244.1.0/24"), node(podCIDR="10.244.2.0/24")
        assert update_faults(NODE, first, node()) == []
        assert update_faults(NODE, first, first) == []
        expected = 'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'
        assert update_faults(NODE, second, first) == [expected]
        assert update_faults(NODE, node(), first) == [expected]

    def test_the_provider_id_is_set_once(self):
        assert update_faults(NODE, node(providerID="b"), node(providerID="a")) == [
            'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid'
        ]

    def test_status(self):
        obj = {"status": {"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}] * 2}}
        assert len(NODE.validate_status(obj, {})) == 1
        assert said(NODE.validate_status({"status": {"capacity": {"cpu": "-1"}}}, {})) == [
            'status.capacity[cpu]: Invalid value: "-1": must be greater than or equal to 0'
        ]

    def test_status_amounts_become_canonical(self):
        new = {"status": {"capacity": {"cpu": "2000m"}}}
        NODE.prepare_status(new, node())
        assert new["status"] == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}

    def test_fields(self):
        assert NODE.fields["spec.unschedulable"](node()) == "false"
        assert NODE.fields["spec.unschedulable"](node(unschedulable=True)) == "true"


class TestConfigMap:
    @pytest.mark.parametrize(
        ("obj", "expected"),
        [
            ({"data": {"a.b-c_D": "x"}, "binaryData": {"b": b64("x")}}, []),
            (
                {"data": {"a": "x"}, "binaryData": {"a": b64("x")}},
                ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
            ),
            ({"data": {"a": "x" * (DATA_MAX + 1)}}, [": Too long: may not be more than 1048576 bytes"]),
            ({"binaryData": {"a": "?"}}, ['binaryData[a]: Invalid value: "?": must be base64 encoded']),
            (
                {"data": {"a/b": "x"}},
                [
                    'data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric '
                    "characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used "
                    "for validation is '[-._a-zA-Z0-9]+')"
                ],
            ),
        ],
    )
    def test_rules(self, obj, expected):
        assert faults(CONFIG_MAP, obj) == expected

    def test_immutable(self):
        old = {"data": {"a": "1"}, "immutable": True}
        assert update_faults(CONFIG_MAP, {**old, "metadata": {"labels": {"x": "y"}}}, old) == []
        assert update_faults(CONFIG_MAP, {"data": {"a": "2"}}, {"data": {"a": "1"}}) == []
        assert update_faults(CONFIG_MAP, {"data": {"a": "2"}}, old) == [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ]


class TestSecret:
    def test_plain_text_becomes_data(self):
        obj = {"data": {"a": b64("old"), "b": b64("stays")}, "stringData": {"a": "new"}}
        assert defaulted(SECRET, obj) == {
            "type": "Opaque",
            "data": {"a": b64("new"), "b": b64("stays")},
        }

    @pytest.mark.parametrize(
        ("obj", "expected"),
        [
            ({"data": {"a": b64("x")}}, []),
            ({"type": "example.com/mine"}, []),
            (
                {"type": "kubernetes.io/tls"},
                ["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            (
                {"type": "kubernetes.io/basic-auth"},
                ["data[username]: Required value", "data[password]: Required value"],
            ),
            ({"type": "kubernetes.io/basic-auth", "data": {"username": b64("x")}}, []),
            (
                {"type": "kubernetes.io/service-account-token"},
                ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ],
    )
    def test_types(self, obj, expected):
        assert faults(SECRET, obj) == expected

    def test_the_type_is_immutable(self):
        assert update_faults(SECRET, {"type": "b"}, {"type": "a"}) == [
            'type: Invalid value: "b": field is immutable'
        ]

    def test_fields(self):
        assert SECRET.fields["type"]({"type": "Opaque"}) == "Opaque"


def event(**fields):
    return {
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
        **fields,
    }


class TestEvent:
    def test_the_namespace_is_the_objects(self):
        expected = "does not match event.namespace"
        assert faults(EVENT, event()) == []
        assert faults(EVENT, event(involvedObject={"kind": "Node", "name": "n"})) == []
        assert faults(EVENT, event(involvedObject={"namespace": "other"})) == [
            f'involvedObject.namespace: Invalid value: "other": {expected}'
        ]
        elsewhere = event(involvedObject={"kind": "Node", "name": "n"})
        elsewhere["metadata"]["namespace"] = "lab"
        assert faults(EVENT, elsewhere) == [f'involvedObject.namespace: Invalid value: "": {expected}']

    def test_new_style_events_say_who_and_what(self):
        found = faults(EVENT, event(eventTime="2026-01-01T00:00:00.000000Z"))
        assert [fault for fault in found if "name part" not in fault] == [
            "reportingController: Required value",
            "reportingInstance: Required value",
            "action: Required value",
            "reason: Required value",
        ]

    def test_fields(self):
        obj = event(reason="Pulled", source={"component": "kubelet"})
        assert EVENT.fields["involvedObject.name"](obj) == "web"
        assert EVENT.fields["source"](obj) == "kubelet"
        assert EVENT.fields["source"](event(reportingComponent="scheduler")) == "scheduler"


class TestEndpoints:
    def test_defaults(self):
        obj = {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}
        assert defaulted(ENDPOINTS, obj)["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]

    @pytest.mark.parametrize(
        ("subset", "expected"),
        [
            ({"addresses": [{"ip": "10.0.0.1"}]}, []),
            ({}, ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
            (
                {"addresses": [{"ip": "0.0.0.0"}]},
                [
                    'subsets[0].addresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified '
                    "(0.0.0.0 or ::)"
                ],
            ),
            (
                {"notReadyAddresses": [{"ip": "169.254.1.1"}]},
                [
                    'subsets[0].notReadyAddresses[0].ip: Invalid value: "169.254.1.1": may not be in the '
                    "link-local range (169.254.0.0/16, fe80::/10)"
                ],
            ),
            (
                {"addresses": [{}]},
                [
                    'subsets[0].addresses[0].ip: Invalid value: "": must be a valid IP address, '
                    "(e.g. 10.9.8.7 or 2001:db8::ffff)"
                ],
            ),
            (
                {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}, {"name": "b", "port": 81}]},
                ["subsets[0].ports[0].name: Required value"],
            ),
        ],
    )
    def test_rules(self, subset, expected):
        assert faults(ENDPOINTS, {"subsets": [subset]}) == expected


def endpoint_slice(*endpoints, **fields):
    return {"addressType": "IPv4", "endpoints": list(endpoints), **fields}


class TestEndpointSlice:
    def test_defaults(self):
        obj = endpoint_slice({"addresses": ["10.0.0.1"]}, ports=[{"port": 80}])
        assert defaulted(ENDPOINT_SLICE, obj) == {
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        }

    @pytest.mark.parametrize(
        ("obj", "expected"),
        [
            (endpoint_slice({"addresses": ["10.0.0.1"]}), []),
            (endpoint_slice({"addresses": ["fd00::1"]}, addressType="IPv6"), []),
            (endpoint_slice({"addresses": ["a.example.com"]}, addressType="FQDN"), []),
            ({}, ["addressType: Required value"]),
            (
                endpoint_slice(addressType="MAC"),
                ['addressType: Unsupported value: "MAC": supported values: "FQDN", "IPv4", "IPv6"'],
            ),
            (
                endpoint_slice({"addresses": []}),
                ["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                endpoint_slice({"addresses": ["fd00::1"]}),
                ['endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address'],
            ),
            (
                endpoint_slice({"addresses": ["127.0.0.1"]}),
                [
                    'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range '
                    "(127.0.0.0/8, ::1/128)"
                ],
            ),
            (
                endpoint_slice(*({"addresses": ["10.0.0.1"]} for _ in range(1001))),
                ["endpoints: Too many: 1001: must have at most 1000 items"],
            ),
            (
                endpoint_slice(ports=[{"port": 80}, {"port": 81}]),
                ['ports[1].name: Duplicate value: ""'],
            ),
            (
                endpoint_slice(ports=[{"port": 0}]),
                ["ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
        ],
    )
    def test_rules(self, obj, expected):
        assert faults(ENDPOINT_SLICE, obj) == expected

    def test_the_type_of_address_is_immutable(self):
        assert update_faults(ENDPOINT_SLICE, endpoint_slice(addressType="IPv6"), endpoint_slice()) == [
            'addressType: Invalid value: "IPv6": field is immutable'
        ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"holderIdentity": "n1", "leaseDurationSeconds": 40}, []),
        (
            {"leaseDurationSeconds": 0},
            ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        ),
        (
            {"leaseTransitions": -1},
            ["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
        ),
        ({"holderIdentity": ""}, ['spec.holderIdentity: Invalid value: "": must not be empty']),
    ],
)
def test_lease(spec, expected):
    assert faults(LEASE, {"spec": spec}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", []),
        ("", ["unexpected end of JSON input"]),
        ("secret", ["invalid character 's' looking for beginning of value"]),
        ("[]", ["json: cannot unmarshal array into Go value of type map[string]interface {}"]),
    ],
)
def test_docker_configurations_are_json_and_are_not_shown(text, expected):
    data = {".dockerconfigjson": base64.b64encode(text.encode()).decode()}
    secret = {"metadata": {"name": "x"}, "type": "kubernetes.io/dockerconfigjson", "data": data}
    assert faults(SECRET, secret) == [
        f'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": {each}' for each in expected
    ]
