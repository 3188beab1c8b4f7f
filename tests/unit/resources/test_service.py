import pytest
from support.resources import defaulted, faults, said, service, update_faults

from controlplane.meta.objects import clone
from controlplane.resources.catalog import SERVICE


def allocated(**spec):
    """A stored NodePort service."""
    obj = service({"name": "http", "port": 80, "nodePort": 30080}, type="NodePort", **spec)
    obj["spec"].update(
        clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"], ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack"
    )
    return defaulted(SERVICE, obj)


def put(new, old):
    new = defaulted(SERVICE, new)
    SERVICE.prepare_update(new, old)
    return new


def test_defaults_of_a_plain_service():
    assert defaulted(SERVICE, service())["spec"] == {
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"app": "web"},
        "sessionAffinity": "None",
        "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster",
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "NodePort"}, {"externalTrafficPolicy": "Cluster"}),
        (
            {"type": "LoadBalancer"},
            {"externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": True},
        ),
        ({"externalIPs": ["203.0.113.1"]}, {"externalTrafficPolicy": "Cluster"}),
        ({"sessionAffinity": "ClientIP"}, {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}),
        (
            {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
        ),
    ],
)
def test_defaults_that_depend(spec, expected):
    result = defaulted(SERVICE, service(**spec))["spec"]
    assert {name: result.get(name) for name in expected} == expected


def test_external_name_gets_no_policies():
    spec = defaulted(SERVICE, service(type="ExternalName", externalName="example.com"))["spec"]
    assert "internalTrafficPolicy" not in spec
    assert "externalTrafficPolicy" not in spec


def test_an_affinity_config_without_affinity_goes():
    spec = {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}
    assert "sessionAffinityConfig" not in defaulted(SERVICE, service(**spec))["spec"]


@pytest.mark.parametrize(
    "obj",
    [
        service(),
        service({"port": 80, "targetPort": "http"}),
        service({"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}),
        service({"port": 80, "nodePort": 30080}, type="NodePort"),
        service(type="LoadBalancer", externalTrafficPolicy="Local"),
        service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8"]),
        service(clusterIP="None", clusterIPs=["None"]),
        service(clusterIP="10.96.0.9", clusterIPs=["10.96.0.9"]),
        {"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "example.com."}},
        {"metadata": {"name": "x"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}},
        service(trafficDistribution="PreferClose"),
    ],
)
def test_good_services(obj):
    assert faults(SERVICE, obj) == []


GO_PORT = (
    'core.ServicePort{Name:"", Protocol:"TCP", AppProtocol:(*string)(nil), Port:80, '
    'TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:""}, NodePort:0}'
)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"spec": {}}, ["spec.ports: Required value"]),
        (
            service({"port": 0, "targetPort": 80}),
            ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        ),
        (
            service({"port": 70000, "targetPort": 80}),
            ["spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        (
            service({"port": 80, "targetPort": 70000}),
            ["spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        (
            service({"port": 80, "targetPort": "http_x"}),
            [
                'spec.ports[0].targetPort: Invalid value: "http_x": must contain only alpha-numeric characters '
                "(a-z, 0-9), and hyphens (-)"
            ],
        ),
        (
            service({"port": 80, "protocol": "ICMP"}),
            [
                'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
            ],
        ),
        (
            service({"port": 80}, {"port": 81}),
            ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        ),
        (
            service({"name": "a", "port": 80}, {"name": "a", "port": 81}),
            ['spec.ports[1].name: Duplicate value: "a"'],
        ),
        (
            service({"name": "a", "port": 80}, {"name": "b", "port": 80}),
            [f"spec.ports[1]: Duplicate value: {GO_PORT}"],
        ),
        (
            service(
                {"name": "a", "port": 80, "nodePort": 30080},
                {"name": "b", "port": 81, "nodePort": 30080},
                type="NodePort",
            ),
            ["spec.ports[1].nodePort: Duplicate value: 30080"],
        ),
        (
            service({"port": 80, "nodePort": 30080}),
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            service(type="Nope"),
            [
                'spec.type: Unsupported value: "Nope": supported values: "ClusterIP", "ExternalName", '
                '"LoadBalancer", "NodePort"'
            ],
        ),
        (
            service(sessionAffinity="Sticky"),
            ['spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"'],
        ),
        (
            service(
                sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 86401}}
            ),
            [
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: "
                "must be greater than 0 and less than 86400"
            ],
        ),
        (
            service(externalTrafficPolicy="Local"),
            [
                'spec.externalTrafficPolicy: Invalid value: "Local": '
                "may only be set for externally-accessible services"
            ],
        ),
        (
            service(type="NodePort", externalTrafficPolicy="Near"),
            ['spec.externalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"'],
        ),
        (
            service(internalTrafficPolicy="Near"),
            ['spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"'],
        ),
        (
            service(type="NodePort", healthCheckNodePort=30001),
            [
                "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' "
                "and `externalTrafficPolicy` is 'Local'"
            ],
        ),
        (
            {"spec": {"type": "ExternalName"}},
            ["spec.externalName: Required value"],
        ),
        (
            {
                "spec": {
                    "type": "ExternalName",
                    "externalName": "a.b",
                    "clusterIP": "10.0.0.1",
                    "clusterIPs": ["10.0.0.1"],
                }
            },
            ["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        ),
        (
            service(type="NodePort", clusterIP="None", clusterIPs=["None"]),
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            service({"port": 10250}, type="LoadBalancer"),
            [
                "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by "
                "kubelet"
            ],
        ),
        (
            service(clusterIP="10.0.0.1", clusterIPs=["10.0.0.2"]),
            ['spec.clusterIPs: Invalid value: []string{"10.0.0.2"}: first value must match `clusterIP`'],
        ),
        (
            service(clusterIP="ten", clusterIPs=["ten"]),
            [
                'spec.clusterIPs[0]: Invalid value: "ten": must be a valid IP address, '
                "(e.g. 10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            service(externalIPs=["127.0.0.1"]),
            [
                'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range '
                "(127.0.0.0/8, ::1/128)"
            ],
        ),
        (
            service(allocateLoadBalancerNodePorts=True),
            ["spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        ),
        (
            service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.1"]),
            [
                'spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.1": must be a valid CIDR value, '
                "(e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ],
        ),
        (
            service(ipFamilies=["IPv4", "IPv4"]),
            ['spec.ipFamilies[1]: Duplicate value: "IPv4"'],
        ),
        (
            service(ipFamilyPolicy="Both"),
            [
                'spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", '
                '"RequireDualStack", "SingleStack"'
            ],
        ),
    ],
)
def test_faults(obj, expected):
    assert faults(SERVICE, obj) == expected


def test_a_bad_selector_is_blamed_whole():
    (fault,) = faults(SERVICE, service(selector={"app": "-"}))
    assert fault.startswith('spec.selector: Invalid value: "-": a valid label must be')


def test_put_keeps_what_was_allocated():
    old = allocated()
    new = put(service({"name": "http", "port": 8080}, type="NodePort"), old)
    assert new["spec"]["clusterIP"] == "10.96.0.7"
    assert new["spec"]["clusterIPs"] == ["10.96.0.7"]
    assert new["spec"]["ipFamilies"] == ["IPv4"]
    assert new["spec"]["ports"][0]["nodePort"] == 30080
    assert SERVICE.validate_update(new, old) == []


def test_put_does_not_give_a_node_port_to_two():
    old = allocated()
    ports = [{"name": "http", "port": 80}, {"name": "other", "port": 81, "nodePort": 30080}]
    new = put(service(*ports, type="NodePort"), old)
    assert "nodePort" not in new["spec"]["ports"][0]


def test_put_keeps_the_health_check_port():
    old = allocated()
    old["spec"].update(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    new = put(service(type="LoadBalancer", externalTrafficPolicy="Local"), old)
    assert new["spec"]["healthCheckNodePort"] == 31000


def test_changing_to_cluster_ip_drops_node_ports_and_policy():
    old = allocated()
    patched = clone(old)
    patched["spec"]["type"] = "ClusterIP"
    new = put(patched, old)
    assert "nodePort" not in new["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in new["spec"]
    assert SERVICE.validate(new) == []


def test_changing_to_external_name_drops_the_addresses():
    old = allocated()
    patched = clone(old)
    patched["spec"].update(type="ExternalName", externalName="example.com")
    new = put(patched, old)
    assert "clusterIP" not in new["spec"]
    assert "clusterIPs" not in new["spec"]
    assert SERVICE.validate(new) == []
    assert SERVICE.validate_update(new, old) == []


def test_changed_node_ports_are_left_for_validation_to_refuse():
    old = allocated()
    patched = clone(old)
    patched["spec"]["type"] = "ClusterIP"
    patched["spec"]["ports"][0]["nodePort"] = 30099
    new = put(patched, old)
    assert said(SERVICE.validate(new)) == [
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"
    ]


def test_the_cluster_ip_may_not_change():
    old = allocated()
    assert update_faults(SERVICE, service(clusterIP="10.96.0.8"), old) == [
        'spec.clusterIPs[0]: Invalid value: []string{"10.96.0.8"}: may not change once set'
    ]
    assert update_faults(SERVICE, service(clusterIP="None"), old) == [
        'spec.clusterIPs[0]: Invalid value: []string{"None"}: may not change once set'
    ]


def test_a_secondary_address_may_come_and_go():
    old = allocated()
    both = clone(old)
    both["spec"].update(clusterIPs=["10.96.0.7", "fd00::7"], ipFamilyPolicy="PreferDualStack")
    assert SERVICE.validate_update(both, old) == []
    assert SERVICE.validate_update(old, both) == []
    kept = {**old, "spec": {**old["spec"], "ipFamilyPolicy": "PreferDualStack"}}
    assert said(SERVICE.validate_update(kept, both)) == [
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing "
        "the secondary clusterIP"
    ]


def test_the_addresses_can_not_be_unset():
    old = allocated()
    new = clone(old)
    del new["spec"]["clusterIP"], new["spec"]["clusterIPs"], new["spec"]["ipFamilies"]
    assert said(SERVICE.validate_update(new, old)) == [
        "spec.clusterIPs[0]: Invalid value: []string(nil): primary clusterIP can not be unset",
        "spec.ipFamilies[0]: Invalid value: []string(nil): primary ipFamily can not be unset",
    ]


def test_create_makes_both_forms_of_the_address_agree():
    obj = defaulted(SERVICE, service(clusterIP="None"))
    obj["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    SERVICE.prepare_create(obj)
    assert obj["spec"]["clusterIPs"] == ["None"]
    assert obj["status"] == {"loadBalancer": {}}


def test_status_belongs_to_load_balancers():
    old = allocated()
    new = {**old, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}
    assert said(SERVICE.validate_status(new, old))[0] == (
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    )


def test_a_load_balancers_address_gets_a_mode():
    old = allocated()
    old["spec"]["type"] = "LoadBalancer"
    new = clone(old)
    new["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    SERVICE.prepare_status(new, old)
    assert new["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]
    assert SERVICE.validate_status(new, old) == []


def test_fields_for_selectors():
    obj = allocated()
    assert SERVICE.fields["spec.clusterIP"](obj) == "10.96.0.7"
    assert SERVICE.fields["spec.type"](obj) == "NodePort"
    assert SERVICE.fields["metadata.name"](obj) == "web"


def test_addresses_are_of_different_families_in_their_order():
    two = service(clusterIP="10.0.0.1", clusterIPs=["10.0.0.1", "10.0.0.2"])
    assert faults(SERVICE, two) == [
        'spec.clusterIPs: Invalid value: []string{"10.0.0.1", "10.0.0.2"}: may specify no more than one IP for each '
        "IP family"
    ]
    swapped = service(clusterIP="10.0.0.1", clusterIPs=["10.0.0.1", "fd00::1"], ipFamilies=["IPv6", "IPv4"])
    assert faults(SERVICE, swapped) == [
        'spec.clusterIPs[0]: Invalid value: "10.0.0.1": expected an IPv6 value as indicated by `ipFamilies[0]`',
        'spec.clusterIPs[1]: Invalid value: "fd00::1": expected an IPv4 value as indicated by `ipFamilies[1]`',
    ]


def test_source_ranges_by_annotation():
    key = "service.beta.kubernetes.io/load-balancer-source-ranges"
    place = f"metadata.annotations[{key}]"
    obj = {
        **service(type="LoadBalancer"),
        "metadata": {"name": "x", "annotations": {key: "10.0.0.0/8, 1.2.3.4/32"}},
    }
    assert faults(SERVICE, obj) == []
    obj["metadata"]["annotations"][key] = "10.0.0.0"
    assert faults(SERVICE, obj) == [
        f'{place}: Invalid value: "10.0.0.0": must be a comma separated list of CIDRs e.g. 192.168.0.0/16,10.0.0.0/8'
    ]
    obj["metadata"]["annotations"][key] = ""
    obj["spec"]["type"] = "NodePort"
    assert faults(SERVICE, obj) == [f"{place}: Forbidden: may only be used when `type` is 'LoadBalancer'"]


def test_the_health_check_port_stays():
    old = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30001)
    new = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30002)
    assert update_faults(SERVICE, new, old) == [
        "spec.healthCheckNodePort: Invalid value: 30002: field is immutable"
    ]
