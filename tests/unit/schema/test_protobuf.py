"""Decoding protobuf bodies: what kubectl sends, the rules one by one, and bytes that are no message."""

import base64

import pytest
from support import protobuf as wire
from support.protobuf_bodies import BODIES

from controlplane.schema import protobuf, protobuf_table, protobuf_wire
from controlplane.schema.protobuf import PREFIX, decode
from controlplane.schema.protobuf_table import MessageField, Shape
from controlplane.schema.protobuf_wire import ProtobufError

GOLDEN = {
    "create deployment web --image=nginx:1 --replicas=0 --port=80": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80}]}]
                },
            },
        },
    },
    "create configmap settings --from-literal=a=1 --from-literal=empty=": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"a": "1", "empty": ""},
    },
    "create service nodeport web --tcp=80:http --node-port=30080": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "ports": [
                {"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30080}
            ],
            "selector": {"app": "web"},
            "type": "NodePort",
        },
    },
    "autoscale deployment web --min=1 --max=3 --cpu-percent=50": {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50,
        },
        "status": {"currentReplicas": 0, "desiredReplicas": 0},
    },
    "create role r --verb=get,list --resource=pods": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r"},
        "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}],
    },
    "create quota q --hard=cpu=1,memory=1.5Gi": {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"cpu": "1", "memory": "1536Mi"}},
    },
    "create ingress i --rule=a.b/c*=d:80,tls": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "i"},
        "spec": {
            "tls": [{"hosts": ["a.b"]}],
            "rules": [
                {
                    "host": "a.b",
                    "http": {
                        "paths": [
                            {
                                "path": "/c",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "d", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ],
        },
    },
    "create pdb p --selector=a=b --min-available=50%": {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "p"},
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    },
    "create priorityclass pc --value=0": {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "pc"},
        "value": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    },
    "create cronjob c --image=a --schedule=@daily": {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c"},
        "spec": {
            "schedule": "@daily",
            "jobTemplate": {
                "metadata": {"name": "c"},
                "spec": {
                    "template": {
                        "spec": {"containers": [{"name": "c", "image": "a"}], "restartPolicy": "OnFailure"}
                    }
                },
            },
        },
    },
    "create token default --duration=10m": {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
        "status": {"token": ""},
    },
}


def pod(raw: bytes) -> dict:
    return decode(wire.envelope(raw, "v1", "Pod"))


def pod_spec(**fields) -> dict:
    """What becomes of a Pod's spec that is written as Go writes it."""
    return decode(wire.encode({"spec": fields}, "v1", "Pod"))["spec"]


@pytest.mark.parametrize("typed", BODIES)
def test_what_kubectl_sends(typed):
    assert decode(BODIES[typed]) == GOLDEN[typed]


def test_zeros_stay_only_where_they_say_something():
    spec = pod_spec(
        terminationGracePeriodSeconds=0,
        automountServiceAccountToken=False,
        hostNetwork=False,
        nodeName="",
        securityContext={},
        containers=[{"name": "c", "resources": {}, "env": [{"name": "E", "value": ""}]}],
    )
    assert spec == {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {},
        "containers": [{"name": "c", "env": [{"name": "E"}]}],
    }


def test_inlined_structs():
    volumes = [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "m", "optional": False, "items": [{"key": "k", "path": "p"}]}},
        {"name": "c", "projected": {"sources": [{"secret": {"name": "s"}}]}},
    ]
    probe = {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5}
    reference = {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    container = {"name": "c", "env": [reference], "readinessProbe": probe}
    ephemeral = {"name": "d", "image": "i", "targetContainerName": "c"}
    spec = pod_spec(volumes=volumes, containers=[container], ephemeralContainers=[ephemeral])
    assert spec == {"volumes": volumes, "containers": [container], "ephemeralContainers": [ephemeral]}


def test_special_types():
    metadata = {
        "name": "p",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "m", "fieldsV1": {"f:metadata": {"f:name": {}}}}],
    }
    limits = {"cpu": "100m", "memory": "1Gi"}
    field = {"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}
    container = {"name": "c", "resources": {"limits": limits}, "env": [field]}
    found = decode(wire.encode({"metadata": metadata, "spec": {"containers": [container]}}, "v1", "Pod"))
    assert found["metadata"] == metadata
    assert found["spec"] == {"containers": [container]}
    lease = {"holderIdentity": "h", "renewTime": "2026-01-02T03:04:05.000007Z", "leaseTransitions": 0}
    assert decode(wire.encode({"spec": lease}, "coordination.k8s.io/v1", "Lease"))["spec"] == lease
    secret = {"data": {"k": base64.b64encode(b"\xff\0").decode(), "empty": ""}}
    assert decode(wire.encode(secret, "v1", "Secret"))["data"] == secret["data"]
    numbers = {"securityContext": {"supplementalGroups": [1, -1, 2**63 - 1], "runAsUser": -(2**63)}}
    assert pod_spec(**numbers) == numbers


def test_moments():
    def created(*fields: bytes) -> object:
        metadata = wire.length(1, wire.length(8, b"".join(fields)))
        return pod(metadata).get("metadata", {}).get("creationTimestamp")

    assert created() is None
    assert created(wire.number(1, 0), wire.number(2, 0)) is None
    assert created(wire.number(1, -1)) == "1969-12-31T23:59:59Z"
    assert created(wire.number(1, 1), wire.number(2, 999_999_999)) == "1970-01-01T00:00:01Z"
    for seconds in (2**62, -(2**63), 253_402_300_800):
        with pytest.raises(ProtobufError, match=r"^ObjectMeta\.creationTimestamp: the time is outside"):
            created(wire.number(1, seconds))


def test_delete_options_and_lists():
    options = {
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"},
        "orphanDependents": False,
        "dryRun": ["All"],
    }
    found = decode(wire.encode(options, "apps/v1", "DeleteOptions"))
    assert found == {"apiVersion": "apps/v1", "kind": "DeleteOptions", **options}
    maps = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}, {}]}
    assert decode(wire.encode(maps, "v1", "ConfigMapList")) == {
        "apiVersion": "v1",
        "kind": "ConfigMapList",
        **maps,
    }


def test_a_body_without_type_gets_the_endpoints():
    raw = wire.length(1, wire.length(1, b"p"))
    assert decode(PREFIX + wire.length(2, raw), "v1", "Pod") == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
    }
    with pytest.raises(ProtobufError, match="Object 'Kind' is missing"):
        decode(PREFIX + wire.length(2, raw))


def test_what_comes_twice():
    """Messages are merged, values replaced (by a zero too), maps' keys replaced, as Go's code does it."""
    metadata = [
        wire.length(1, b"first") + wire.length(11, wire.length(1, b"k") + wire.length(2, b"old")),
        wire.length(3, b"ns") + wire.length(11, wire.length(1, b"k")),
        wire.length(1, b""),
    ]
    found = pod(b"".join(wire.length(1, part) for part in metadata))
    assert found["metadata"] == {"namespace": "ns", "labels": {"k": ""}}


def test_unknown_fields_are_passed_over():
    unknown = [
        wire.number(900, 7),
        wire.length(901, b"\xff"),
        wire.varint(902 << 3 | 1) + bytes(8),
        wire.varint(903 << 3 | 5) + bytes(4),
        wire.varint(904 << 3 | 3)
        + wire.varint(1 << 3 | 3)
        + wire.number(1, 1)
        + wire.varint(1 << 3 | 4)
        + wire.varint(904 << 3 | 4),
    ]
    assert (
        pod(b"".join(unknown) + wire.length(1, wire.length(1, b"p")) + unknown[1])["metadata"]["name"] == "p"
    )


def test_numbers_are_cut_and_packed_as_in_go():
    port = wire.length(2, wire.length(6, wire.number(3, 2**32 + 80)))
    found = pod(wire.length(2, port))["spec"]["containers"][0]["ports"]
    assert found == [{"containerPort": 80}]
    groups = wire.length(4, wire.varint(1) + wire.varint(-2))
    assert pod(wire.length(2, wire.length(14, groups)))["spec"]["securityContext"] == {
        "supplementalGroups": [1, -2]
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", r"does not appear to be a protobuf message, expected prefix \[107, 56, 115, 0\]"),
        (b'{"kind": "Pod"}', "does not appear to be a protobuf message"),
        (PREFIX, "Object 'Kind' is missing"),
        (PREFIX + b"\x0a", "unexpected EOF"),
        (PREFIX + b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "unexpected EOF"),
        (PREFIX + b"\xff" * 10, "integer overflow"),
        (PREFIX + b"\x00\x00", "illegal tag 0"),
        (PREFIX + b"\x0f", "illegal wireType 7"),
        (PREFIX + b"\x0c", "wiretype end group for non-group"),
        (PREFIX + b"\x08\x01", "Unknown: wrong wireType = 0 for field 1"),
        (PREFIX + wire.length(3, b"gzip"), "the content encoding 'gzip' is not supported"),
        (wire.envelope(b"", "v1", "Thing"), 'no kind "Thing" is registered for version "v1"'),
        (wire.envelope(b"", "example.com/v1", "Thing"), "no kind"),
    ],
)
def test_envelopes_that_cannot_be_read(body, words):
    with pytest.raises(ProtobufError, match=words):
        decode(body)


def spec(data: bytes) -> bytes:
    return wire.length(2, data)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (wire.number(1, 1), r"^Pod\.metadata: wrong wireType = 0$"),
        (wire.length(1, b"\x0a\x05ab"), r"^ObjectMeta: unexpected EOF$"),
        (wire.length(1, wire.length(1, b"\xff")), r"^ObjectMeta\.name: invalid UTF-8$"),
        (wire.length(1, wire.number(11, 1)), r"^ObjectMeta\.labels: wrong wireType = 0$"),
        (wire.length(1, wire.length(11, wire.number(1, 1))), r"^ObjectMeta\.labels: wrong wireType = 0$"),
        (spec(wire.length(4, b"")), r"^PodSpec\.terminationGracePeriodSeconds: wrong wireType = 2$"),
        (spec(wire.length(14, wire.length(4, b"\xff"))), r"^PodSecurityContext\.supplementalGroups: unexpected"),
        (wire.length(1, wire.length(17, wire.length(7, wire.length(1, b"{")))), r"fieldsV1: json parse error"),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_read(raw, words):
    with pytest.raises(ProtobufError, match=words):
        pod(raw)


def test_an_int_or_string_is_one_of_the_two():
    target = wire.length(4, wire.number(1, 2))
    with pytest.raises(ProtobufError, match=r"^ServicePort\.targetPort: impossible IntOrString\.Type 2$"):
        decode(wire.envelope(wire.length(2, wire.length(1, target)), "v1", "Service"))


def test_embedded_json_has_a_depth():
    def revision(depth: int) -> dict:
        text = b"[" * depth + b"]" * depth
        return decode(wire.envelope(wire.length(2, wire.length(1, text)), "apps/v1", "ControllerRevision"))

    assert "data" in revision(protobuf.MAX_DEPTH)
    for depth in (protobuf.MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(ProtobufError):
            revision(depth)


def test_groups_have_no_depth():
    """Three mebibytes of nested groups are passed over without recursion."""
    start, end = wire.varint(900 << 3 | 3), wire.varint(900 << 3 | 4)
    count = 100_000
    assert pod(start * count + end * count) == {"apiVersion": "v1", "kind": "Pod"}
    with pytest.raises(ProtobufError, match="unexpected EOF"):
        pod(start * count)


def test_messages_have_a_depth(monkeypatch):
    """No kind of 1.32 holds itself; a table where one does is stood in."""
    itself = {1: MessageField("inner", Shape.POINTER, "io.k8s.api.core.v1.Pod")}
    monkeypatch.setattr(protobuf_table, "message", lambda name: itself)
    raw = b""
    for _ in range(protobuf.MAX_DEPTH - 1):
        raw = wire.length(1, raw)
    assert "inner" in pod(raw)
    with pytest.raises(ProtobufError, match="exceeded max depth of 100"):
        pod(wire.length(1, raw))


def test_the_number_of_fields_is_bounded(monkeypatch):
    """The four of the envelope, its type's two and the spec count too."""
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 100)
    empty = wire.length(2, b"")
    assert len(pod(wire.length(2, empty * 93))["spec"]["containers"]) == 93
    moment = wire.length(1, wire.length(8, wire.number(1, 1) * 100))
    groups = wire.length(2, wire.length(14, wire.length(4, bytes(100))))
    for raw in (wire.length(2, empty * 94), moment, groups):
        with pytest.raises(ProtobufError, match="more than 100 fields"):
            pod(raw)
    with pytest.raises(ProtobufError, match="more than 100 fields"):
        decode(PREFIX + wire.length(4, b"") * 101)


def test_a_varint_is_64_bits():
    assert protobuf_wire.varint(memoryview(b"\xff" * 9 + b"\x7f"), 0) == (2**64 - 1, 10)
