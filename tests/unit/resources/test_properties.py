"""For any object: defaults are idempotent, what is defaulted changes nothing, and no function raises."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import examples

from controlplane.meta.objects import clone
from controlplane.resources.catalog import DEPLOYMENT, POD, SERVICE

NOW = datetime(2026, 1, 2, tzinfo=UTC)

names = st.sampled_from(["a", "web", "Bad Name", ""])
ports = st.sampled_from([0, 80, 8080, 70000, "http", "Bad_Port"])
amounts = st.sampled_from(["1", "500m", "1024Mi", "0.5", "-1", "x", 2, None])


def record(**fields):
    """Any subset of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


handlers = record(
    httpGet=record(path=st.just("/"), port=ports),
    tcpSocket=record(port=ports),
    exec=record(command=st.just(["true"])),
    grpc=record(port=ports),
    periodSeconds=st.integers(-1, 5),
    successThreshold=st.integers(0, 2),
)
resources = record(
    limits=st.dictionaries(st.sampled_from(["cpu", "memory", "x/y", "bad"]), amounts, max_size=3),
    requests=st.dictionaries(st.sampled_from(["cpu", "memory", "x/y"]), amounts, max_size=3),
)
containers = record(
    name=names,
    image=st.sampled_from(["nginx", "nginx:1", "a@sha256:0", ""]),
    ports=st.lists(
        record(name=names, containerPort=st.integers(0, 70000), hostPort=st.integers(0, 9)), max_size=2
    ),
    env=st.lists(
        record(
            name=names,
            value=names,
            valueFrom=record(
                fieldRef=record(fieldPath=st.sampled_from(["status.podIP", "x", "metadata.labels['a']"])),
                resourceFieldRef=record(resource=names, divisor=amounts),
                configMapKeyRef=record(name=names, key=names),
            ),
        ),
        max_size=2,
    ),
    livenessProbe=handlers,
    readinessProbe=st.none() | handlers,
    resources=st.none() | resources,
    volumeMounts=st.lists(record(name=names, mountPath=st.just("/x")), max_size=2),
)
volumes = record(
    name=names,
    emptyDir=record(sizeLimit=amounts),
    hostPath=record(path=st.just("/x/../y")),
    secret=record(secretName=names, defaultMode=st.integers(-1, 1000)),
    projected=record(sources=st.lists(record(serviceAccountToken=record(path=names)), max_size=2)),
    ephemeral=record(volumeClaimTemplate=record(spec=record(storageClassName=names))),
)
specs = record(
    containers=st.lists(containers, max_size=3),
    initContainers=st.none() | st.lists(containers, max_size=2),
    volumes=st.lists(volumes, max_size=2),
    hostNetwork=st.booleans(),
    restartPolicy=st.sampled_from(["Always", "Never", "x", ""]),
    serviceAccount=names,
    tolerations=st.lists(record(key=names, operator=names, tolerationSeconds=st.integers(0, 5)), max_size=2),
    activeDeadlineSeconds=st.none() | st.integers(0, 5),
)
pods = st.fixed_dictionaries({"metadata": st.just({"name": "x"})}, optional={"spec": st.none() | specs})
services = st.fixed_dictionaries(
    {"metadata": st.just({"name": "x"})},
    optional={
        "spec": record(
            type=st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "x", ""]),
            ports=st.none()
            | st.lists(
                record(
                    name=names, port=st.integers(0, 70000), targetPort=ports, nodePort=st.integers(0, 31000)
                ),
                max_size=3,
            ),
            sessionAffinity=st.sampled_from(["None", "ClientIP", ""]),
            sessionAffinityConfig=record(clientIP=record(timeoutSeconds=st.integers(0, 9))),
            externalIPs=st.lists(st.sampled_from(["1.2.3.4", "x"]), max_size=2),
            clusterIP=st.sampled_from(["None", "", "10.0.0.1"]),
            clusterIPs=st.lists(st.sampled_from(["None", "10.0.0.1"]), max_size=2),
            externalName=names,
        )
    },
)
deployments = st.fixed_dictionaries(
    {"metadata": st.just({"name": "x"})},
    optional={
        "spec": record(
            replicas=st.none() | st.integers(-1, 3),
            selector=st.none() | record(matchLabels=st.dictionaries(names, names, max_size=2)),
            template=record(metadata=record(labels=st.dictionaries(names, names, max_size=2)), spec=specs),
            strategy=record(
                type=st.sampled_from(["Recreate", "RollingUpdate", "x"]),
                rollingUpdate=record(
                    maxSurge=st.sampled_from([0, "0%", "x"]), maxUnavailable=st.integers(-1, 1)
                ),
            ),
        )
    },
)
objects = st.one_of(
    st.tuples(st.just(POD), pods),
    st.tuples(st.just(SERVICE), services),
    st.tuples(st.just(DEPLOYMENT), deployments),
)


@settings(max_examples=examples(80), deadline=None)
@given(objects)
def test_defaults_are_idempotent(kind_and_object):
    kind, obj = kind_and_object
    kind.default(obj)
    once = clone(obj)
    kind.default(obj)
    assert obj == once


@settings(max_examples=examples(80), deadline=None)
@given(objects)
def test_an_object_may_be_put_back_as_it_is(kind_and_object):
    kind, obj = kind_and_object
    kind.default(obj)
    kind.prepare_create(obj)
    again = clone(obj)
    kind.prepare_update(again, obj)
    assert again == obj
    assert list(kind.validate_update(again, obj)) == []


@settings(max_examples=examples(80), deadline=None)
@given(objects)
def test_validation_and_printing_change_nothing(kind_and_object):
    kind, obj = kind_and_object
    kind.default(obj)
    before = clone(obj)
    for cause in kind.validate(obj):
        assert cause.reason
        assert cause.message
    assert kind.row is not None
    kind.row(obj, NOW)
    assert obj == before
