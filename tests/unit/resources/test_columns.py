"""What `kubectl get` prints for each kind."""

from datetime import UTC, datetime

import pytest
from support.resources import container, defaulted, pod, service, workload

from controlplane.resources.catalog import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
)

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
BORN = "2026-01-02T11:55:00Z"
ENDED = "2026-01-02T11:59:55Z"


def cells(kind, obj):
    """By column name, without Name and Age."""
    obj = {**obj, "metadata": {"name": "x", "creationTimestamp": BORN, **obj.get("metadata", {})}}
    row = kind.row(obj, NOW)
    assert len(row) == len(kind.columns)
    named = dict(zip((column.name for column in kind.columns), row, strict=True))
    assert named.pop("Age", "5m") == "5m"
    assert named.pop("Name") == obj["metadata"]["name"]
    return named


def state(name="web", *, ready=False, restarts=0, ended="", started=None, **now):
    status = {"name": name, "ready": ready, "restartCount": restarts, "state": now}
    if ended:
        status["lastState"] = {"terminated": {"finishedAt": ended}}
    if started is not None:
        status["started"] = started
    return status


RUNNING = {"running": {}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def statuses(*containers, init=(), phase="Running", conditions=(), **status):
    return {
        "phase": phase,
        "containerStatuses": list(containers),
        "initContainerStatuses": list(init),
        "conditions": [{"type": type_, "status": "True"} for type_ in conditions],
        **status,
    }


WAITING = state("i2", waiting={"reason": "PodInitializing"})
GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
TWO = pod("x", container("a"), container("b"))
WITH_INIT = pod("x", container(), initContainers=[container("i1"), container("i2")])
WITH_SIDECAR = pod("x", container(), initContainers=[container("side", restartPolicy="Always")])
DELETED = {"deletionTimestamp": "2026-01-02T12:00:30Z"}


@pytest.mark.parametrize(
    ("obj", "status", "meta", "expected"),
    [
        (pod(), statuses(phase="Pending"), {}, ("0/1", "Pending", "0")),
        (pod(), statuses(state(ready=True, **RUNNING)), {}, ("1/1", "Running", "0")),
        (pod(), statuses(state(**RUNNING)), {}, ("0/1", "Running", "0")),
        (
            pod(),
            statuses(state(waiting={"reason": "ContainerCreating"}), phase="Pending"),
            {},
            ("0/1", "ContainerCreating", "0"),
        ),
        (
            pod(),
            statuses(state(restarts=2, ended=ENDED, waiting={"reason": "CrashLoopBackOff"})),
            {},
            ("0/1", "CrashLoopBackOff", "2 (5s ago)"),
        ),
        (pod(), statuses(state(restarts=2, ready=True, **RUNNING)), {}, ("1/1", "Running", "2")),
        (pod(), statuses(state(**DONE), phase="Succeeded"), {}, ("0/1", "Completed", "0")),
        (
            pod(),
            statuses(state(terminated={"exitCode": 1, "reason": "Error"}), phase="Failed"),
            {},
            ("0/1", "Error", "0"),
        ),
        (pod(), statuses(state(terminated={"exitCode": 3})), {}, ("0/1", "ExitCode:3", "0")),
        (pod(), statuses(state(terminated={"signal": 9})), {}, ("0/1", "Signal:9", "0")),
        (
            TWO,
            statuses(state("a", **DONE), state("b", ready=True, **RUNNING), conditions=["Ready"]),
            {},
            ("1/2", "Running", "0"),
        ),
        (
            TWO,
            statuses(state("a", **DONE), state("b", ready=True, **RUNNING)),
            {},
            ("1/2", "NotReady", "0"),
        ),
        (
            TWO,
            statuses(
                state("a", waiting={"reason": "ErrImagePull"}), state("b", waiting={"reason": "PodInitializing"})
            ),
            {},
            ("0/2", "ErrImagePull", "0"),
        ),
        (pod(), statuses(state(ready=True, **RUNNING)), DELETED, ("1/1", "Terminating", "0")),
        (pod(), statuses(state(**DONE), phase="Succeeded"), DELETED, ("0/1", "Completed", "0")),
        (pod(), statuses(reason="NodeLost"), DELETED, ("0/1", "Unknown", "0")),
        (pod(), statuses(phase="Failed", reason="Evicted"), {}, ("0/1", "Evicted", "0")),
        (
            WITH_INIT,
            statuses(init=[state("i1", **RUNNING), WAITING], phase="Pending"),
            {},
            ("0/1", "Init:0/2", "0"),
        ),
        (
            WITH_INIT,
            statuses(init=[state("i1", **DONE), WAITING], phase="Pending"),
            {},
            ("0/1", "Init:1/2", "0"),
        ),
        (
            WITH_INIT,
            statuses(
                init=[state("i1", restarts=3, ended=ENDED, waiting={"reason": "CrashLoopBackOff"})],
                phase="Pending",
            ),
            {},
            ("0/1", "Init:CrashLoopBackOff", "3 (5s ago)"),
        ),
        (
            WITH_INIT,
            statuses(init=[state("i1", terminated={"exitCode": 1})], phase="Pending"),
            {},
            ("0/1", "Init:ExitCode:1", "0"),
        ),
        (
            WITH_INIT,
            statuses(init=[state("i1", terminated={"exitCode": 1, "reason": "Error"})], phase="Pending"),
            {},
            ("0/1", "Init:Error", "0"),
        ),
        (
            WITH_INIT,
            statuses(
                state(ready=True, **RUNNING), init=[state("i1", restarts=1, **DONE), state("i2", **DONE)]
            ),
            {},
            ("1/1", "Running", "0"),
        ),
        (
            # After the sandbox was made anew the init containers run again in an initialized pod.
            WITH_INIT,
            statuses(state(ready=True, **RUNNING), init=[WAITING], conditions=["Initialized"]),
            {},
            ("1/1", "Init:0/2", "0"),
        ),
        (
            WITH_SIDECAR,
            statuses(
                state(ready=True, **RUNNING),
                init=[state("side", ready=True, started=True, restarts=1, ended=ENDED, **RUNNING)],
            ),
            {},
            ("2/2", "Running", "1 (5s ago)"),
        ),
        (
            pod(),
            {"phase": "Pending", "conditions": [GATED]},
            {},
            ("0/1", "SchedulingGated", "0"),
        ),
    ],
)  # fmt: skip
def test_pods(obj, status, meta, expected):
    shown = cells(POD, {**obj, "metadata": meta, "status": status})
    assert (shown["Ready"], shown["Status"], shown["Restarts"]) == expected


def test_pods_wide():
    obj = pod(nodeName="n1", readinessGates=[{"conditionType": "a"}, {"conditionType": "b"}])
    shown = cells(POD, {**obj, "status": statuses(conditions=["a"], podIPs=[{"ip": "10.244.1.2"}])})
    assert shown["IP"] == "10.244.1.2"
    assert shown["Node"] == "n1"
    assert shown["Nominated Node"] == "<none>"
    assert shown["Readiness Gates"] == "1/2"
    shown = cells(POD, {**pod(), "status": {}})
    assert (shown["IP"], shown["Node"], shown["Readiness Gates"]) == ("<none>", "<none>", "<none>")


def test_finished_pods_carry_a_condition():
    assert POD.row_conditions({"status": {"phase": "Running"}}) == ()
    (succeeded,) = POD.row_conditions({"status": {"phase": "Succeeded"}})
    (failed,) = POD.row_conditions({"status": {"phase": "Failed"}})
    assert (succeeded["type"], succeeded["reason"]) == ("Completed", "Succeeded")
    assert (failed["type"], failed["reason"]) == ("Completed", "Failed")


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"clusterIPs": ["10.96.0.7"]}, {}, ("ClusterIP", "10.96.0.7", "<none>", "80/TCP")),
        ({"clusterIP": "None"}, {}, ("ClusterIP", "None", "<none>", "80/TCP")),
        (
            {"clusterIP": "10.96.0.7", "externalIPs": ["203.0.113.1", "203.0.113.2"]},
            {},
            ("ClusterIP", "10.96.0.7", "203.0.113.1,203.0.113.2", "80/TCP"),
        ),
        (
            {
                "type": "NodePort",
                "ports": [{"port": 8080, "nodePort": 31013}, {"port": 53, "protocol": "UDP"}],
            },
            {},
            ("NodePort", "<none>", "<none>", "8080:31013/TCP,53/UDP"),
        ),
        ({"type": "LoadBalancer"}, {}, ("LoadBalancer", "<none>", "<pending>", "80/TCP")),
        (
            {"type": "LoadBalancer", "externalIPs": ["203.0.113.1"]},
            {"loadBalancer": {"ingress": [{"ip": "172.18.255.1"}, {"hostname": "lb.example.com"}]}},
            ("LoadBalancer", "<none>", "172.18.255.1,lb.example.com,203.0.113.1", "80/TCP"),
        ),
        (
            {"type": "ExternalName", "externalName": "example.com", "ports": []},
            {},
            ("ExternalName", "<none>", "example.com", "<none>"),
        ),
    ],
)
def test_services(spec, status, expected):
    obj = defaulted(SERVICE, service(**spec))
    shown = cells(SERVICE, {"spec": obj["spec"], "status": status})
    assert (shown["Type"], shown["Cluster-IP"], shown["External-IP"], shown["Port(s)"]) == expected
    assert shown["Selector"] == "app=web"


def test_workloads():
    status = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}
    two = workload(replicas=3)
    two["spec"]["template"]["spec"]["containers"].append(container("b", image="busybox"))
    wide = {"Containers": "web,b", "Images": "nginx:1.27,busybox", "Selector": "app=web"}
    obj = {"spec": two["spec"], "status": status}
    assert cells(DEPLOYMENT, obj) == {"Ready": "2/3", "Up-to-date": 3, "Available": 1, **wide}
    assert cells(REPLICA_SET, obj) == {"Desired": 3, "Current": 3, "Ready": 2, **wide}
    assert cells(DEPLOYMENT, {"spec": {"replicas": 1}})["Ready"] == "0/1"


@pytest.mark.parametrize(
    ("obj", "status", "roles"),
    [
        ({}, "Unknown", "<none>"),
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "Ready", "<none>"),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, "NotReady", "<none>"),
        (
            {
                "metadata": {
                    "labels": {
                        "node-role.kubernetes.io/worker": "",
                        "node-role.kubernetes.io/control-plane": "",
                        "kubernetes.io/role": "edge",
                    }
                },
                "spec": {"unschedulable": True},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
            "Ready,SchedulingDisabled",
            "control-plane,edge,worker",
        ),
    ],
)
def test_nodes(obj, status, roles):
    shown = cells(NODE, obj)
    assert (shown["Status"], shown["Roles"]) == (status, roles)


def test_nodes_wide():
    shown = cells(
        NODE,
        {
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n"},
                    {"type": "InternalIP", "address": "172.18.0.2"},
                ],
                "nodeInfo": {"kubeletVersion": "v1.32.0", "kernelVersion": "6.1", "osImage": "Debian"},
            }
        },
    )
    assert shown["Version"] == "v1.32.0"
    assert shown["Internal-IP"] == "172.18.0.2"
    assert shown["External-IP"] == "<none>"
    assert shown["Container-Runtime"] == "<unknown>"


@pytest.mark.parametrize(
    ("subsets", "text"),
    [
        ([], "<none>"),
        ([{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}], ""),
        ([{"addresses": [{"ip": "10.0.0.1"}]}], "10.0.0.1"),
        (
            [{"addresses": [{"ip": f"10.0.0.{i}"} for i in range(1, 4)], "ports": [{"port": 80}]}],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80",
        ),
        (
            [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 443}]}],
            "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more...",
        ),
    ],
)
def test_endpoints(subsets, text):
    assert cells(ENDPOINTS, {"subsets": subsets}) == {"Endpoints": text}


@pytest.mark.parametrize(
    ("endpoints", "ports", "expected"),
    [
        ([], [], ("<unset>", "<unset>")),
        ([["10.0.0.1"], ["10.0.0.2"]], [{"port": 80}, {"name": "any"}], ("80,any", "10.0.0.1,10.0.0.2")),
        (
            [[f"10.0.0.{i}"] for i in range(1, 6)],
            [{"port": i} for i in range(1, 5)],
            ("1,2,3 + 1 more...", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."),
        ),
    ],
)
def test_endpoint_slices(endpoints, ports, expected):
    obj = {"addressType": "IPv4", "endpoints": [{"addresses": a} for a in endpoints], "ports": ports}
    shown = cells(ENDPOINT_SLICE, obj)
    assert shown["AddressType"] == "IPv4"
    assert (shown["Ports"], shown["Endpoints"]) == expected


def test_events_of_both_styles():
    old = cells(
        EVENT,
        {
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
            "type": "Normal",
            "reason": "Pulled",
            "message": " Image there \n",
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": BORN,
            "lastTimestamp": ENDED,
            "count": 4,
        },
    )
    assert old == {
        "Last Seen": "5s",
        "Type": "Normal",
        "Reason": "Pulled",
        "Object": "pod/web",
        "Subobject": "spec.containers{web}",
        "Source": "kubelet, n1",
        "Message": "Image there",
        "First Seen": "5m",
        "Count": 4,
    }
    new = {
        "involvedObject": {"kind": "Pod", "name": "web"},
        "eventTime": "2026-01-02T11:55:00.000000Z",
        "reportingComponent": "default-scheduler",
        "reportingInstance": "s1",
    }
    shown = cells(EVENT, new)
    assert (shown["Last Seen"], shown["First Seen"], shown["Count"]) == ("5m", "5m", 1)
    assert shown["Source"] == "default-scheduler, s1"
    series = {"count": 7, "lastObservedTime": "2026-01-02T11:59:55.000000Z"}
    shown = cells(EVENT, {**new, "series": series})
    assert (shown["Last Seen"], shown["First Seen"], shown["Count"]) == ("5s", "5m", 7)


def test_the_plain_kinds():
    assert cells(NAMESPACE, {"status": {"phase": "Active"}}) == {"Status": "Active"}
    assert cells(CONFIG_MAP, {"data": {"a": "b"}, "binaryData": {"c": ""}}) == {"Data": 2}
    assert cells(SECRET, {"type": "Opaque", "data": {"a": ""}}) == {"Type": "Opaque", "Data": 1}
    assert cells(SERVICE_ACCOUNT, {}) == {"Secrets": 0}
    assert cells(LEASE, {"spec": {"holderIdentity": "n1"}}) == {"Holder": "n1"}
