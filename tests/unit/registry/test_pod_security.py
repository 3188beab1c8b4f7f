"""The Pod Security Standards: every check with upstream's words, versions, modes, namespaces, exemptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.admission.plugin import Remarks
from controlplane.apiserver.admission.pod_security import Exemptions, PodSecurity
from controlplane.apiserver.admission.pod_security.evaluation import details, evaluate
from controlplane.apiserver.admission.pod_security.findings import PodView
from controlplane.apiserver.admission.pod_security.levels import (
    LATEST,
    Level,
    LevelVersion,
    Policy,
    policy_of,
)
from controlplane.apiserver.registry import Registry, UserInfo, WriteOptions
from controlplane.errors import Forbidden, Invalid, NotFound
from controlplane.resources.catalog import DEPLOYMENT, KINDS, NAMESPACE, POD
from controlplane.store.memory import MemoryStore

GOOD_CONTAINER: dict[str, Any] = {
    "name": "c",
    "image": "i",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


def container(name: str = "c", **security: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "securityContext": {**GOOD_CONTAINER["securityContext"], **security}}


def said(level: Level, spec: dict[str, Any], minor: int = LATEST, **metadata: Any) -> str:
    spec = {"containers": [GOOD_CONTAINER], **spec}
    return details(evaluate(LevelVersion(level, minor), PodView(metadata, spec)))


APPARMOR = "container.apparmor.security.beta.kubernetes.io/c"

BASELINE: list[tuple[dict[str, Any], str]] = [
    ({"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
    ({"hostPID": True, "hostIPC": True}, "host namespaces (hostPID=true, hostIPC=true)"),
    ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "v")'),
    (
        {"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]},
        'hostPath volumes (volumes "v", "w")',
    ),
    (
        {"containers": [{"name": "a", "ports": [{"hostPort": 80}]}]},
        'hostPort (container "a" uses hostPort 80)',
    ),
    (
        {
            "containers": [{"name": "a", "ports": [{"hostPort": 80}]}],
            "initContainers": [{"name": "b", "ports": [{"hostPort": 9}, {"hostPort": 0}]}],
        },
        'hostPort (containers "b", "a" use hostPorts 80, 9)',
    ),
    (
        {"containers": [container(privileged=True)]},
        'privileged (container "c" must not set securityContext.privileged=true)',
    ),
    (
        {"ephemeralContainers": [container("e", privileged=True)], "containers": [container(privileged=True)]},
        'privileged (containers "c", "e" must not set securityContext.privileged=true)',
    ),
    (
        {"containers": [container(procMount="Unmasked")]},
        'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
    ),
    (
        {"containers": [container(capabilities={"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]})]},
        'non-default capabilities (container "c" must not include "NET_RAW", "SYS_ADMIN" in '
        "securityContext.capabilities.add)",
    ),
    (
        {"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}}},
        'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; '
        "role may not be set)",
    ),
    (
        {"securityContext": {"seLinuxOptions": {"user": "u"}},
         "containers": [container(seLinuxOptions={"type": "a"})]},
        'seLinuxOptions (pod and container "c" set forbidden securityContext.seLinuxOptions: type "a"; user may not '
        "be set)",
    ),
    (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (
        {"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}, {"name": "a"}]}},
        "forbidden sysctls (kernel.msgmax, a)",
    ),
    (
        {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
        'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")',
    ),
    (
        {"securityContext": {"windowsOptions": {"hostProcess": True}},
         "containers": [container(windowsOptions={"hostProcess": True})]},
        'hostProcess (pod and container "c" must not set securityContext.windowsOptions.hostProcess=true)',
    ),
    ({"hostNetwork": False, "volumes": [{"name": "v", "nfs": {}}]}, ""),
]  # fmt: skip

RESTRICTED: list[tuple[dict[str, Any], str]] = [
    (
        {"containers": [{"name": "c"}]},
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")',
    ),
    (
        {"containers": [container(capabilities={"add": ["NET_BIND_SERVICE", "CHOWN"], "drop": ["KILL"]})]},
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; container "c" '
        'must not include "CHOWN" in securityContext.capabilities.add)',
    ),
    (
        {"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "ok", "emptyDir": {}}]},
        'restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")',
    ),
    (
        {"securityContext": {"runAsNonRoot": False}},
        "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
    ),
    (
        {"securityContext": {"runAsUser": 0}, "containers": [container(runAsUser=0)]},
        'runAsUser=0 (pod and container "c" must not set runAsUser=0)',
    ),
    (
        {"containers": [container(seccompProfile={"type": "Unconfined"})]},
        'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (
        {"hostNetwork": True, "containers": [container(allowPrivilegeEscalation=True)]},
        "host namespaces (hostNetwork=true), allowPrivilegeEscalation != false (container \"c\" must set "
        "securityContext.allowPrivilegeEscalation=false)",
    ),
    ({"os": {"name": "windows"}, "containers": [{"name": "c", "securityContext": {"runAsNonRoot": True}}]}, ""),
    ({"volumes": [{"name": "v", "projected": {}}, {"name": "w", "csi": {}}]}, ""),
    ({}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), BASELINE)
def test_baseline(spec: dict[str, Any], expected: str) -> None:
    assert said(Level.BASELINE, spec) == expected


@pytest.mark.parametrize(("spec", "expected"), RESTRICTED)
def test_restricted(spec: dict[str, Any], expected: str) -> None:
    assert said(Level.RESTRICTED, spec) == expected


@pytest.mark.parametrize(
    ("level", "minor", "spec", "annotations", "expected"),
    [
        (Level.BASELINE, 26, {"securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}}, {},
         "forbidden sysctls (net.ipv4.ip_local_reserved_ports)"),
        (Level.BASELINE, 27, {"securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}}, {}, ""),
        (Level.BASELINE, 31, {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_wmem"}]}}, {},
         "forbidden sysctls (net.ipv4.tcp_wmem)"),
        (Level.BASELINE, 30, {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}, {},
         'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "container_engine_t")'),
        (Level.BASELINE, 31, {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}, {}, ""),
        (Level.BASELINE, 18, {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
         {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"},
         'seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")'),
        (Level.BASELINE, LATEST, {}, {APPARMOR: "unconfined"},
         "forbidden AppArmor profile (annotation must not set AppArmor profile type to "
         f'"{APPARMOR}=\\"unconfined\\"")'),
        (Level.RESTRICTED, 7, {"containers": [{"name": "c", "securityContext": {"runAsNonRoot": True}}]}, {}, ""),
        (Level.RESTRICTED, 24, {"os": {"name": "windows"},
                                "containers": [container(allowPrivilegeEscalation=True)]}, {},
         'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)'),
        (Level.RESTRICTED, 22, {"securityContext": {"runAsUser": 0}}, {}, ""),
        (Level.PRIVILEGED, LATEST, {"hostNetwork": True}, {}, ""),
    ],
)  # fmt: skip
def test_versions(
    level: Level, minor: int, spec: dict[str, Any], annotations: dict[str, str], expected: str
) -> None:
    assert said(level, spec, minor, annotations=annotations) == expected


_SECURITY = st.fixed_dictionaries(
    {},
    optional={
        "privileged": st.booleans(),
        "allowPrivilegeEscalation": st.booleans(),
        "runAsNonRoot": st.booleans(),
        "runAsUser": st.integers(0, 2),
        "procMount": st.sampled_from(["Default", "Unmasked"]),
        "seccompProfile": st.fixed_dictionaries({"type": st.sampled_from(["Unconfined", "RuntimeDefault"])}),
        "capabilities": st.fixed_dictionaries(
            {}, optional={"add": st.lists(st.sampled_from(["CHOWN", "NET_RAW"])), "drop": st.just(["ALL"])}
        ),
    },
)


@given(st.lists(_SECURITY, min_size=1, max_size=3), st.integers(0, 40), st.booleans())
def test_restricted_allows_nothing_that_baseline_forbids(
    securities: list[dict[str, Any]], minor: int, host_network: bool
) -> None:
    spec = {
        "hostNetwork": host_network,
        "containers": [{"name": f"c{at}", "securityContext": each} for at, each in enumerate(securities)],
    }
    if said(Level.BASELINE, spec, minor):
        assert said(Level.RESTRICTED, spec, minor)


def test_policies_from_labels() -> None:
    prefix = "pod-security.kubernetes.io/"
    labels = {
        f"{prefix}enforce": "baseline",
        f"{prefix}enforce-version": "v1.27",
        f"{prefix}warn": "restricted",
    }
    policy, causes = policy_of(labels, Policy())
    assert (str(policy.enforce), str(policy.warn), str(policy.audit)) == (
        "baseline:v1.27", "restricted:latest", "privileged:latest",
    )  # fmt: skip
    assert not causes


class Cluster:
    def __init__(self, plugin: PodSecurity) -> None:
        self.registry = Registry(MemoryStore(), KINDS, validation=[plugin])
        self.remarks = Remarks()

    def options(self, user: str = "bob") -> WriteOptions:
        self.remarks = Remarks()
        return WriteOptions(user=UserInfo(user), remarks=self.remarks)

    async def namespace(self, **labels: str) -> None:
        full = {f"pod-security.kubernetes.io/{key.replace('_', '-')}": value for key, value in labels.items()}
        obj = {"metadata": {"name": "shop", "labels": full}}
        try:
            present = await self.registry.get(NAMESPACE, "", "shop")
        except NotFound:
            await self.registry.create(NAMESPACE, "", obj, self.options())
        else:
            changed = {**present.object, "metadata": {**present.object["metadata"], "labels": full}}
            await self.registry.update(NAMESPACE, "", "shop", changed, self.options())

    async def pod(self, name: str = "p", user: str = "bob", **spec: Any) -> None:
        obj = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
        await self.registry.create(POD, "shop", obj, self.options(user))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster(
        PodSecurity(exemptions=Exemptions(usernames=frozenset({"root"}), runtime_classes=frozenset({"vm"})))
    )
    await made.registry.start()
    yield made
    await made.registry.close()


async def test_enforce(cluster: Cluster) -> None:
    await cluster.namespace(enforce="baseline")
    with pytest.raises(Forbidden) as caught:
        await cluster.pod(hostNetwork=True)
    assert caught.value.message == (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    )
    await cluster.pod()
    assert cluster.remarks.annotations == {"pod-security.kubernetes.io/enforce-policy": "baseline:latest"}


async def test_warn_and_audit(cluster: Cluster) -> None:
    await cluster.namespace(warn="baseline", audit="baseline", audit_version="v1.30")
    await cluster.pod(hostPID=True)
    assert cluster.remarks.warnings == [
        'would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)'
    ]
    assert cluster.remarks.annotations["pod-security.kubernetes.io/audit-violations"] == (
        'would violate PodSecurity "baseline:v1.30": host namespaces (hostPID=true)'
    )


async def test_templates_are_warned_about_and_not_refused(cluster: Cluster) -> None:
    await cluster.namespace(enforce="baseline", warn="baseline")
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "i"}]},
    }
    obj = {
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    await cluster.registry.create(DEPLOYMENT, "shop", obj, cluster.options())
    assert cluster.remarks.warnings == [
        'would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    ]


async def test_exemptions(cluster: Cluster) -> None:
    await cluster.namespace(enforce="restricted")
    await cluster.pod(user="root")
    assert cluster.remarks.annotations == {"pod-security.kubernetes.io/exempt": "user"}
    await cluster.pod("q", runtimeClassName="vm")
    assert cluster.remarks.annotations == {"pod-security.kubernetes.io/exempt": "runtimeClass"}


async def test_updates_count_when_images_change(cluster: Cluster) -> None:
    await cluster.namespace()
    await cluster.pod(hostNetwork=True)
    await cluster.namespace(enforce="baseline")
    present = (await cluster.registry.get(POD, "shop", "p")).object
    labelled = {**present, "metadata": {**present["metadata"], "labels": {"x": "y"}}}
    stored, _ = await cluster.registry.update(POD, "shop", "p", labelled, cluster.options())
    spec = {**stored.object["spec"], "containers": [{**stored.object["spec"]["containers"][0], "image": "j"}]}
    with pytest.raises(Forbidden, match="violates PodSecurity"):
        await cluster.registry.update(POD, "shop", "p", {**stored.object, "spec": spec}, cluster.options())


async def test_a_stricter_namespace_warns_of_its_pods(cluster: Cluster) -> None:
    await cluster.namespace()
    for name in ("b", "a", "c"):
        await cluster.pod(name, hostNetwork=True)
    await cluster.pod("d", hostPID=True, hostNetwork=True)
    await cluster.namespace(enforce="baseline")
    assert cluster.remarks.warnings == [
        'existing pods in namespace "shop" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 3 other pods): host namespaces",
    ]
    await cluster.namespace(enforce="privileged")
    assert cluster.remarks.warnings == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            {"enforce": "strict"},
            'metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, '
            "baseline, restricted",
        ),
        (
            {"warn_version": "1.2"},
            'metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "1.2": must be "latest" or '
            '"v1.x"',
        ),
    ],
)
async def test_bad_labels(cluster: Cluster, labels: dict[str, str], expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        await cluster.namespace(**labels)
    assert caught.value.message == f'Namespace "shop" is invalid: {expected}'
