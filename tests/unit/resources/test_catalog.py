from datetime import UTC, datetime

import pytest

from controlplane.resources import catalog
from controlplane.resources.catalog import KINDS

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_kinds():
    assert {f"{kind.api_version} {kind.kind}" for kind in KINDS} == {
        "v1 ConfigMap",
        "v1 Endpoints",
        "v1 Event",
        "v1 Namespace",
        "v1 Node",
        "v1 Pod",
        "v1 Secret",
        "v1 Service",
        "v1 ServiceAccount",
        "apps/v1 Deployment",
        "apps/v1 ReplicaSet",
        "coordination.k8s.io/v1 Lease",
        "discovery.k8s.io/v1 EndpointSlice",
        "certificates.k8s.io/v1 CertificateSigningRequest",
        "rbac.authorization.k8s.io/v1 ClusterRole",
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding",
        "rbac.authorization.k8s.io/v1 Role",
        "rbac.authorization.k8s.io/v1 RoleBinding",
    }


def test_look_ups():
    assert catalog.by_plural("apps", "v1", "deployments") is catalog.DEPLOYMENT
    assert catalog.by_plural("", "v1", "pods") is catalog.POD
    assert catalog.by_plural("apps", "v1", "pods") is None
    assert catalog.by_kind("v1", "Service") is catalog.SERVICE
    assert catalog.by_kind("v2", "Service") is None


def test_no_two_kinds_share_a_place_in_the_store():
    prefixes = [kind.prefix for kind in KINDS]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and b.startswith(a)]
    assert len(set(prefixes)) == len(prefixes)


def test_no_two_kinds_share_a_name_on_the_command_line():
    names = [name for kind in KINDS for name in (kind.plural, kind.singular, *kind.short_names)]
    doubled = {name for name in names if names.count(name) > 1}
    # A kind whose singular is its plural.
    assert doubled == {"endpoints"}


def test_get_all():
    assert {kind.plural for kind in KINDS if "all" in kind.categories} == {
        "pods", "services", "deployments", "replicasets",
    }  # fmt: skip


def test_which_kinds_count_generations():
    assert {kind.plural for kind in KINDS if kind.generation} == {
        "deployments", "replicasets", "endpointslices",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_an_empty_object_harms_nothing(kind):
    """Functions of kinds meet objects of any age and shape; faults are causes, never exceptions."""
    obj = {"metadata": {"name": "x"}}
    kind.default(obj)
    kind.prepare_create(obj)
    kind.prepare_update(obj, {"metadata": {}})
    kind.prepare_status(obj, {"metadata": {}})
    kind.validate(obj)
    kind.validate_update(obj, {"metadata": {}})
    kind.validate_status(obj, {"metadata": {}})
    assert kind.row is not None
    assert len(kind.row(obj, NOW)) == len(kind.columns)
    for getter in kind.fields.values():
        assert isinstance(getter(obj), str)
    assert list(kind.row_conditions(obj)) == []


def test_discovery_of_subresources():
    names = {f"{kind.plural}/{sub.name}" for kind in KINDS for sub in kind.subresources}
    assert names == {
        "certificatesigningrequests/approval",
        "namespaces/finalize",
        "nodes/proxy",
        "pods/attach",
        "pods/binding",
        "pods/ephemeralcontainers",
        "pods/eviction",
        "pods/exec",
        "pods/log",
        "pods/portforward",
        "pods/proxy",
        "serviceaccounts/token",
        "services/proxy",
    }
    assert {kind.plural for kind in KINDS if kind.scale} == {"deployments", "replicasets"}
