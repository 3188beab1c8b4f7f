import pytest
from support.resources import container, defaulted, pod, workload

from controlplane.resources.catalog import DEPLOYMENT, POD, REPLICA_SET
from controlplane.resources.podspec.defaults import image_tag
from controlplane.resources.podspec.qos import qos_class


def spec_of(*containers, **spec):
    return defaulted(POD, pod("web", *containers, **spec))["spec"]


def test_a_plain_pod():
    assert spec_of({"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}) == {
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


def test_what_is_set_stays():
    given = {
        "dnsPolicy": "None",
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "schedulerName": "mine",
        "terminationGracePeriodSeconds": 0,
    }
    result = spec_of(container(imagePullPolicy="Never"), **given)
    assert {name: result[name] for name in given} == given
    assert result["containers"][0]["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("image", "tag", "policy"),
    [
        ("nginx", "latest", "Always"),
        ("nginx:latest", "latest", "Always"),
        ("nginx:1.27", "1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "latest", "Always"),
        ("localhost:5000/nginx:1", "1", "IfNotPresent"),
        ("alicek106/rr-test:echo-hostname", "echo-hostname", "IfNotPresent"),
        ("nginx@sha256:0123", "", "IfNotPresent"),
        ("nginx:latest@sha256:0123", "latest", "Always"),
    ],
)
def test_the_pull_policy_follows_the_tag(image, tag, policy):
    assert image_tag(image) == tag
    assert spec_of({"name": "a", "image": image})["containers"][0]["imagePullPolicy"] == policy


def test_probes_and_hooks():
    (result,) = spec_of(
        container(
            livenessProbe={"httpGet": {"port": 80}},
            readinessProbe={"tcpSocket": {"port": 80}, "periodSeconds": 2, "timeoutSeconds": 0},
            startupProbe={"grpc": {"port": 80}},
            lifecycle={"preStop": {"httpGet": {"port": 80, "path": "/bye"}}},
        )
    )["containers"]
    numbers = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert result["livenessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **numbers}
    assert result["readinessProbe"] == {"tcpSocket": {"port": 80}, **numbers, "periodSeconds": 2}
    assert result["startupProbe"] == {"grpc": {"port": 80, "service": ""}, **numbers}
    assert result["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/bye", "scheme": "HTTP"}


def test_quantities_become_canonical_and_limits_become_requests():
    (result,) = spec_of(
        container(resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}})
    )["containers"]
    assert result["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "500m", "memory": "1Gi"},
    }


def test_templates_get_less_than_pods():
    obj = workload()
    obj["spec"]["template"]["spec"].update(
        hostNetwork=True,
        containers=[container(ports=[{"containerPort": 80}], resources={"limits": {"cpu": "1"}})],
    )
    template = defaulted(DEPLOYMENT, obj)["spec"]["template"]
    assert template["metadata"]["creationTimestamp"] is None
    assert "enableServiceLinks" not in template["spec"]
    (result,) = template["spec"]["containers"]
    assert result["resources"] == {"limits": {"cpu": "1"}}
    assert "hostPort" not in result["ports"][0]


def test_host_network_pods_claim_their_ports():
    result = spec_of(
        container(ports=[{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]), hostNetwork=True
    )
    assert [port["hostPort"] for port in result["containers"][0]["ports"]] == [80, 81]


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({}, {"emptyDir": {}}),
        ({"emptyDir": {"sizeLimit": "1024Ki"}}, {"emptyDir": {"sizeLimit": "1Mi"}}),
        ({"hostPath": {"path": "/x"}}, {"hostPath": {"path": "/x", "type": ""}}),
        ({"secret": {"secretName": "s"}}, {"secret": {"secretName": "s", "defaultMode": 420}}),
        (
            {"secret": {"secretName": "s", "defaultMode": 0}},
            {"secret": {"secretName": "s", "defaultMode": 0}},
        ),
        ({"configMap": {"name": "c"}}, {"configMap": {"name": "c", "defaultMode": 420}}),
        (
            {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {
                "downwardAPI": {
                    "items": [{"path": "x", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}],
                    "defaultMode": 420,
                }
            },
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {
                "projected": {
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
                    "defaultMode": 420,
                }
            },
        ),
    ],
)
def test_volumes(volume, expected):
    (result,) = spec_of(volumes=[{"name": "v", **volume}])["volumes"]
    assert result == {"name": "v", **expected}


def test_references_in_the_environment():
    (result,) = spec_of(
        container(
            env=[
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ]
        )
    )["containers"]
    assert result["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert result["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"


def test_both_names_of_the_account():
    assert spec_of(serviceAccountName="robot")["serviceAccount"] == "robot"
    assert spec_of(serviceAccount="robot")["serviceAccountName"] == "robot"


def test_init_and_ephemeral_containers_too():
    result = spec_of(initContainers=[container("i")], ephemeralContainers=[container("e")])
    assert result["initContainers"][0]["terminationMessagePolicy"] == "File"
    assert result["ephemeralContainers"][0]["terminationMessagePolicy"] == "File"


def test_create_starts_pending():
    obj = defaulted(POD, pod())
    obj["status"] = {"phase": "Running"}
    POD.prepare_create(obj)
    assert obj["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


def test_gated_pods_say_so():
    obj = defaulted(POD, pod(schedulingGates=[{"name": "example.com/wait"}]))
    POD.prepare_create(obj)
    assert obj["status"]["conditions"][0]["reason"] == "SchedulingGated"


def test_the_status_keeps_its_class_and_both_forms_of_addresses():
    new = {"status": {"podIP": "10.0.0.1", "hostIPs": [{"ip": "172.18.0.2"}], "qosClass": "Guaranteed"}}
    POD.prepare_status(new, {"status": {"qosClass": "BestEffort"}})
    assert new["status"] == {
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "hostIP": "172.18.0.2",
        "hostIPs": [{"ip": "172.18.0.2"}],
        "qosClass": "BestEffort",
    }


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"limits": {"example.com/gpu": "1"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": FULL}], "Guaranteed"),
        ([{"limits": FULL, "requests": {"cpu": "1000m", "memory": "1024Mi"}}], "Guaranteed"),
        ([{"limits": FULL, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": FULL}, {}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_quality_of_service(resources, expected):
    containers = [container(f"c{i}", resources=r) for i, r in enumerate(resources)]
    assert qos_class(pod("x", *containers)) == expected


def test_workloads():
    spec = defaulted(DEPLOYMENT, workload())["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert spec["revisionHistoryLimit"] == 10
    assert spec["progressDeadlineSeconds"] == 600
    recreate = defaulted(DEPLOYMENT, workload(strategy={"type": "Recreate"}, replicas=0))["spec"]
    assert recreate["strategy"] == {"type": "Recreate"}
    assert recreate["replicas"] == 0
    assert set(defaulted(REPLICA_SET, workload("ReplicaSet"))["spec"]) == {"replicas", "selector", "template"}
