import pytest
from support.resources import container, faults, pod, said

from controlplane.resources.catalog import POD
from controlplane.resources.podspec import spec as spec_rules

TCP = {"tcpSocket": {"port": 80}}


def with_container(**fields):
    return pod("web", container(**fields))


@pytest.mark.parametrize(
    "obj",
    [
        pod(),
        pod(
            "two",
            container("nginx", ports=[{"containerPort": 80}]),
            container("tail", command=["tail"], args=["-f", "/dev/null"]),
        ),
        with_container(env=[{"name": "A.B-C", "value": "x"}, {"name": "EMPTY"}]),
        with_container(env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]),
        with_container(env=[{"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]),
        with_container(envFrom=[{"configMapRef": {"name": "c"}}, {"prefix": "S_", "secretRef": {"name": "s"}}]),
        with_container(livenessProbe={"exec": {"command": ["true"]}}, readinessProbe={**TCP, "successThreshold": 2}),
        with_container(lifecycle={"preStop": {"sleep": {"seconds": 5}}}),
        pod(
            "init",
            container(),
            initContainers=[container("one"), container("side", restartPolicy="Always", readinessProbe=TCP)],
        ),
        pod(tolerations=[{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]),
        pod(dnsPolicy="None", dnsConfig={"nameservers": ["10.96.0.10"], "searches": ["a.b.", "."]}),
        pod(hostAliases=[{"ip": "127.0.0.1", "hostnames": ["foo.local"]}]),
        pod(
            topologySpreadConstraints=[
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
            ]
        ),
        pod(
            "vol",
            container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "a/b"}]),
            volumes=[{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}],
        ),
    ],
)  # fmt: skip
def test_good_pods(obj):
    assert faults(POD, obj) == []


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"spec": {}}, ["spec.containers: Required value"]),
        (pod("x", {"name": "web"}), ["spec.containers[0].image: Required value"]),
        (pod("x", {"image": "nginx"}), ["spec.containers[0].name: Required value"]),
        (
            pod("x", container(), container()),
            ['spec.containers[1].name: Duplicate value: "web"'],
        ),
        (
            pod("x", container(), initContainers=[container()]),
            ['spec.initContainers[0].name: Duplicate value: "web"'],
        ),
        (
            with_container(image=" nginx"),
            ['spec.containers[0].image: Invalid value: " nginx": must not have leading or trailing whitespace'],
        ),
        (
            with_container(imagePullPolicy="Maybe"),
            [
                'spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", '
                '"IfNotPresent", "Never"'
            ],
        ),
        (
            with_container(ports=[{"containerPort": 0}]),
            ["spec.containers[0].ports[0].containerPort: Required value"],
        ),
        (
            with_container(ports=[{"containerPort": 70000}]),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: "
                "must be between 1 and 65535, inclusive"
            ],
        ),
        (
            with_container(ports=[{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]),
            ['spec.containers[0].ports[1].name: Duplicate value: "a"'],
        ),
        (
            with_container(ports=[{"name": "a-very-long-port-name", "containerPort": 1}]),
            [
                'spec.containers[0].ports[0].name: Invalid value: "a-very-long-port-name": '
                "must be no more than 15 characters"
            ],
        ),
        (
            pod(
                "x",
                container("a", ports=[{"containerPort": 1, "hostPort": 80}]),
                container("b", ports=[{"containerPort": 2, "hostPort": 80}]),
            ),
            ['spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"'],
        ),
        (
            pod("x", container(ports=[{"containerPort": 1, "hostPort": 80}]), hostNetwork=True),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 1: must match `hostPort` when "
                "`hostNetwork` is true"
            ],
        ),
        (with_container(env=[{"value": "x"}]), ["spec.containers[0].env[0].name: Required value"]),
        (
            with_container(env=[{"name": "A", "valueFrom": {}}]),
            [
                'spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, '
                "`resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            ],
        ),
        (
            with_container(
                env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
            ),
            [
                'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is '
                "not empty"
            ],
        ),
        (
            with_container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]),
            [
                'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": '
                "error converting fieldPath: field label not supported: spec.nope"
            ],
        ),
        (
            with_container(envFrom=[{}]),
            [
                'spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or '
                "`secretRef`"
            ],
        ),
        (
            with_container(volumeMounts=[{"name": "nope", "mountPath": "/x"}]),
            ['spec.containers[0].volumeMounts[0].name: Not found: "nope"'],
        ),
        (
            pod(
                "x",
                container(volumeMounts=[{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]),
                volumes=[{"name": "v"}],
            ),
            ['spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/x": must be unique'],
        ),
        (
            pod(
                "x",
                container(volumeMounts=[{"name": "v", "mountPath": "/x", "subPath": "/a/../b"}]),
                volumes=[{"name": "v"}],
            ),
            [
                'spec.containers[0].volumeMounts[0].subPath: Invalid value: "/a/../b": must be a relative path',
                "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"/a/../b\": must not contain '..'",
            ],
        ),
        (
            pod("x", container(), volumes=[{"name": "v"}, {"name": "v"}]),
            ['spec.volumes[1].name: Duplicate value: "v"'],
        ),
        (
            pod("x", container(), volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            pod("x", container(), volumes=[{"name": "v", "configMap": {}}]),
            ["spec.volumes[0].configMap.name: Required value"],
        ),
        (
            pod("x", container(), volumes=[{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]),
            [
                "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 "
                "(octal), both inclusive"
            ],
        ),
        (
            with_container(livenessProbe={}),
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            with_container(livenessProbe={**TCP, "exec": {"command": ["x"]}}),
            [
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"
            ],
        ),
        (
            with_container(livenessProbe={**TCP, "successThreshold": 2}),
            ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        (
            with_container(livenessProbe={**TCP, "periodSeconds": -1}),
            [
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or "
                "equal to 0"
            ],
        ),
        (
            with_container(readinessProbe={"httpGet": {"port": 0}}),
            [
                "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and "
                "65535, inclusive"
            ],
        ),
        (
            pod("x", container(), initContainers=[container("i", livenessProbe=TCP)]),
            [
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without "
                "restartPolicy=Always"
            ],
        ),
        (
            pod("x", container(restartPolicy="Always")),
            ["spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers"],
        ),
        (
            with_container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            [
                'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu '
                "limit of 1"
            ],
        ),
        (
            with_container(resources={"limits": {"memory": "-1Gi"}}),
            [
                'spec.containers[0].resources.limits[memory]: Invalid value: "-1Gi": must be greater than or '
                "equal to 0",
                'spec.containers[0].resources.requests[memory]: Invalid value: "-1Gi": must be greater than or '
                "equal to 0",
            ],
        ),
        (
            with_container(resources={"requests": {"example.com/gpu": "1"}}),
            [
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable "
                "resources"
            ],
        ),
        (
            with_container(resources={"requests": {"disk": "1"}}),
            [
                'spec.containers[0].resources.requests[disk]: Invalid value: "disk": must be a standard '
                "resource for containers"
            ],
        ),
        (
            pod(restartPolicy="Sometimes"),
            [
                'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", '
                '"Never"'
            ],
        ),
        (
            pod(dnsPolicy="Mine"),
            [
                'spec.dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", '
                '"ClusterFirst", "Default", "None"'
            ],
        ),
        (
            pod(dnsPolicy="None"),
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            pod(activeDeadlineSeconds=0),
            ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            pod(tolerations=[{"value": "x"}]),
            [
                'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty, '
                'which means "match all values and all keys"'
            ],
        ),
        (
            pod(tolerations=[{"key": "a", "operator": "Exists", "tolerationSeconds": 1, "effect": "NoSchedule"}]),
            [
                'spec.tolerations[0].effect: Invalid value: "NoSchedule": effect must be \'NoExecute\' when '
                "`tolerationSeconds` is set"
            ],
        ),
        (
            pod(tolerations=[{"key": "a", "operator": "Like"}]),
            [
                'spec.tolerations[0].operator: Unsupported value: "Like": supported values: "Equal", "Exists"'
            ],
        ),
        (
            pod(hostAliases=[{"ip": "x"}]),
            [
                'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, '
                "(e.g. 10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            pod(
                affinity={
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]
                        }
                    }
                }
            ),
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]."
                "matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ],
        ),
        (
            pod(topologySpreadConstraints=[{"topologyKey": "a", "whenUnsatisfiable": "Never"}]),
            [
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0",
                'spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Never": supported '
                'values: "DoNotSchedule", "ScheduleAnyway"',
            ],
        ),
    ],
)  # fmt: skip
def test_faults(obj, expected):
    assert faults(POD, obj) == expected


@pytest.mark.parametrize(
    ("obj", "field", "part"),
    [
        (
            pod("x", container("No Good")),
            "spec.containers[0].name",
            "a lowercase RFC 1123 label must consist of",
        ),
        (
            with_container(env=[{"name": "A=B"}]),
            "spec.containers[0].env[0].name",
            "printable ASCII characters",
        ),
        (pod(hostname="a.b"), "spec.hostname", "must not contain dots"),
        (pod(nodeSelector={"a": "-"}), "spec.nodeSelector", "a valid label must be"),
        (pod(serviceAccountName="No"), "spec.serviceAccountName", "a lowercase RFC 1123 subdomain"),
    ],
)
def test_faults_and_their_place(obj, field, part):
    (fault,) = faults(POD, obj)
    assert fault.startswith(f"{field}: Invalid value: ")
    assert part in fault


def test_status():
    old = {"spec": {"restartPolicy": "Never"}, "status": {}}
    old["status"]["containerStatuses"] = [{"name": "a", "state": {"terminated": {"exitCode": 0}}}]
    back = {**old, "status": {"containerStatuses": [{"name": "a", "state": {"running": {}}}]}}
    assert POD.validate_status(old, old) == []
    assert said(POD.validate_status(back, old)) == [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    ]
    assert POD.validate_status({**back, "spec": {"restartPolicy": "Always"}}, old) == []


def test_a_spec_that_was_seen_before_is_judged_alike():
    good, bad = pod("a", container("seen")), pod("a", container("seen", image=""))
    for _ in range(3):
        assert faults(POD, good) == []
        assert faults(POD, bad) == ["spec.containers[0].image: Required value"]


def with_tokens(*names, mounted=()):
    """A pod with a volume of each name, of which `mounted` are mounted."""
    mounts = [{"name": name, "mountPath": f"/{at}"} for at, name in enumerate(mounted)]
    volumes = [{"name": name, "emptyDir": {}} for name in names]
    return pod("a", container("tokens", volumeMounts=mounts), volumes=volumes)


def test_pods_of_a_template_are_recognised_whatever_their_token_volume_is_called():
    names = [f"kube-api-access-{suffix}" for suffix in ("abcde", "fghij", "klmno")]
    assert faults(POD, with_tokens(names[0], mounted=names[:1])) == []
    known = len(spec_rules._faultless)
    assert faults(POD, with_tokens(names[1], mounted=names[1:2])) == []
    assert len(spec_rules._faultless) == known


def test_names_of_token_volumes_count_where_there_are_several():
    one, other = "kube-api-access-abcde", "kube-api-access-fghij"
    assert faults(POD, with_tokens(one, other, mounted=(one, other))) == []
    assert faults(POD, with_tokens(one, one, mounted=(one, one))) != []
    assert faults(POD, with_tokens(one, mounted=(one,))) == []
    (missing,) = faults(POD, with_tokens(one, mounted=(other,)))
    assert other in missing


def test_not_all_specs_ever_seen_are_remembered():
    for number in range(2000):
        assert faults(POD, pod("a", container(f"c{number}"))) == []
    assert faults(POD, pod("a", container(args=["x" * 100_000]))) == []
    assert len(spec_rules._faultless) < 1000
    assert max(map(len, spec_rules._faultless)) < 50_000


def test_fields_for_selectors():
    obj = pod(nodeName="n1", hostNetwork=True)
    obj["status"] = {"phase": "Running", "podIP": "10.0.0.1"}
    read = {name: getter(obj) for name, getter in POD.fields.items()}
    assert read == {
        "metadata.name": "web",
        "metadata.namespace": "default",
        "spec.nodeName": "n1",
        "spec.restartPolicy": "",
        "spec.schedulerName": "",
        "spec.serviceAccountName": "",
        "spec.hostNetwork": "true",
        "status.phase": "Running",
        "status.podIP": "10.0.0.1",
        "status.podIPs": "10.0.0.1",
        "status.nominatedNodeName": "",
    }
