"""Quota arithmetic without a server: what objects use, and that no order of writes takes more than there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import Object
from controlplane.meta.quantity import Quantity
from controlplane.quota.amounts import parsed, texts
from controlplane.quota.charge import QuotaRefused, charged
from controlplane.quota.usage import evaluator_of, used_by

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PODS = evaluator_of("", "pods")


def container(cpu: str = "", limit: str = "", **more: Any) -> Object:
    resources = {"requests": {"cpu": cpu} if cpu else {}, "limits": {"cpu": limit} if limit else {}}
    return {"name": "c", "resources": resources, **more}


def pod(*containers: Object, phase: str = "Running", **spec: Any) -> Object:
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": list(containers), **spec},
        "status": {"phase": phase},
    }


def quota(name: str = "q", used: Object | None = None, **hard: str) -> Object:
    spec = {"hard": {key.replace("_", "."): value for key, value in hard.items()}}
    status = {"hard": spec["hard"], "used": used if used is not None else dict.fromkeys(spec["hard"], "0")}
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def usage(obj: Object, *names: str, plural: str = "pods") -> dict[str, str]:
    found = texts(evaluator_of("", plural).usage(obj, NOW))
    return {name: found[name] for name in names if name in found}


def test_a_pod_uses_what_its_containers_take_at_most() -> None:
    initial = [container("3"), container("500m", restartPolicy="Always"), container("2")]
    one = pod(container("1"), container("250m"), initContainers=initial)
    # The last init container runs beside the sidecar; the first one ran alone.
    assert usage(one, "requests.cpu", "cpu", "pods") == {"requests.cpu": "3", "cpu": "3", "pods": "1"}
    two = pod(container("1"), overhead={"cpu": "100m"})
    assert usage(two, "requests.cpu", "limits.cpu") == {"requests.cpu": "1100m"}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_an_object_only(phase: str) -> None:
    assert texts(PODS.usage(pod(container("1"), phase=phase), NOW)) == {"count/pods": "1"}


def test_a_pod_that_should_be_gone_uses_nothing() -> None:
    late = pod(container("1"))
    late["metadata"].update(deletionTimestamp="2025-12-31T23:59:00Z", deletionGracePeriodSeconds=30)
    assert usage(late, "pods") == {}
    assert PODS.usage(late, NOW - timedelta(seconds=40))["pods"] == Quantity.of(1)


def test_extended_resources() -> None:
    gpu = {
        "name": "c",
        "resources": {"requests": {"example.com/gpu": "2"}, "limits": {"example.com/gpu": "2"}},
    }
    assert usage(pod(gpu), "requests.example.com/gpu") == {"requests.example.com/gpu": "2"}
    assert PODS.resources(["requests.example.com/gpu", "requests.storage", "hugepages-2Mi", "configmaps"]) == [
        "requests.example.com/gpu", "hugepages-2Mi",
    ]  # fmt: skip


def test_claims_count_for_their_class() -> None:
    claim = {"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}}
    assert texts(evaluator_of("", "persistentvolumeclaims").usage(claim, NOW)) == {
        "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/requests.storage": "2Gi",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "node_ports", "balancers"),
    [
        ({"type": "ClusterIP", "ports": [{}]}, "0", "0"),
        ({"type": "NodePort", "ports": [{}, {}]}, "2", "0"),
        ({"type": "LoadBalancer", "ports": [{}, {}]}, "2", "1"),
        (
            {"type": "LoadBalancer", "ports": [{}, {"nodePort": 1}], "allocateLoadBalancerNodePorts": False},
            "1",
            "1",
        ),
    ],
)
def test_services(spec: Object, node_ports: str, balancers: str) -> None:
    found = usage({"spec": spec}, "services.nodeports", "services.loadbalancers", plural="services")
    assert found == {"services.nodeports": node_ports, "services.loadbalancers": balancers}


def test_several_quotas_all_must_have_room() -> None:
    wide, narrow = quota("wide", pods="9", requests_cpu="9"), quota("narrow", pods="9", requests_cpu="1")
    with pytest.raises(QuotaRefused, match=r"exceeded quota: narrow, requested: requests\.cpu=2"):
        charged([wide, narrow], PODS, pod(container("2")), None, NOW)
    changed = charged([wide, narrow], PODS, pod(container("1")), None, NOW)
    assert [each["status"]["used"] for each in changed] == [{"pods": "1", "requests.cpu": "1"}] * 2
    assert wide["status"]["used"] == {"pods": "0", "requests.cpu": "0"}


def test_an_update_is_charged_what_it_adds() -> None:
    services = evaluator_of("", "services")
    old = {"spec": {"type": "ClusterIP", "ports": [{}]}}
    new = {"spec": {"type": "NodePort", "ports": [{}]}}
    full = quota(used={"services": "1", "services.nodeports": "0"}, services="1", services_nodeports="1")
    [changed] = charged([full], services, new, old, NOW)
    assert changed["status"]["used"] == {"services": "1", "services.nodeports": "1"}
    assert charged([full], services, old, new, NOW) == []


def test_counting_anew() -> None:
    subject = quota(pods="9", count_pods="9", requests_cpu="9")
    subject["spec"]["hard"]["count/pods"] = "9"
    objs = [pod(container("1")), pod(container("2"), phase="Failed")]
    assert texts(used_by(PODS, subject, objs, NOW)) == {"count/pods": "2", "pods": "1", "requests.cpu": "1"}


_CPU = st.integers(0, 2000).map(lambda milli: f"{milli}m")


@given(
    st.lists(st.tuples(_CPU, st.booleans()), max_size=30),
    st.integers(0, 10),
    st.integers(0, 6000),
)
def test_whatever_comes_and_goes_no_more_is_used_than_allowed(
    writes: list[tuple[str, bool]], most: int, cpu: int
) -> None:
    subject = quota(pods=str(most), requests_cpu=f"{cpu}m")
    standing: list[Object] = []
    for asked, one_goes in writes:
        made = pod(container(asked))
        try:
            changed = charged([subject], PODS, made, None, NOW)
        except QuotaRefused:
            room = Quantity.parse(f"{cpu}m").milli() - _milli(standing)
            assert len(standing) >= most or Quantity.parse(asked).milli() > room
        else:
            subject = changed[0]
            standing.append(made)
        if one_goes and standing:
            standing.pop(0)
            counted = used_by(PODS, subject, standing, NOW)
            subject = {**subject, "status": {**subject["status"], "used": texts(counted)}}
        used, hard = parsed(subject["status"]["used"]), parsed(subject["status"]["hard"])
        assert all(used[name] <= hard[name] for name in hard)
        assert used["requests.cpu"].milli() == _milli(standing)
        assert used["pods"] == Quantity.of(len(standing))


def _milli(pods: list[Object]) -> int:
    return sum(
        Quantity.parse(each["spec"]["containers"][0]["resources"]["requests"].get("cpu", "0")).milli()
        for each in pods
    )
