"""ServiceAccount admission: the token's volume, pull secrets, mirror pods, mountable secrets."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.admission.service_account import TOKEN_PATH, ServiceAccountAdmission
from controlplane.apiserver.user import ANONYMOUS
from controlplane.errors import Forbidden
from controlplane.resources.catalog import POD

MIRROR = {"kubernetes.io/config.mirror": "x"}


def account(**more: Any) -> Any:
    return {"metadata": {"name": "default", "namespace": "n", **more.pop("metadata", {})}, **more}


async def admitted(pod: Any, of: Any = None, **request: Any) -> Any:
    async def lookup(group: str, plural: str, namespace: str, name: str) -> Any:
        found = account() if of is None else of
        return found if (plural, namespace, name) == ("serviceaccounts", "n", "default") else None

    asked = AdmissionRequest(
        operation=request.get("operation", Operation.CREATE), kind=POD, namespace="n", name="p",
        subresource=request.get("subresource", ""), obj=pod, old=None, user=ANONYMOUS, dry_run=False, lookup=lookup,
    )  # fmt: skip
    await ServiceAccountAdmission(pause=0).admit(asked)
    return pod["spec"]


def pod(annotations: Any = None, **spec: Any) -> Any:
    containers = [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}]
    return {
        "metadata": {"name": "p", "annotations": annotations or {}},
        "spec": {"containers": containers, "initContainers": [{"name": "i"}], **spec},
    }


async def test_every_container_gets_the_token() -> None:
    spec = await admitted(pod(volumes=[{"name": "own", "emptyDir": {}}]))
    own, volume = spec["volumes"]
    assert own["name"] == "own"
    assert volume["name"].startswith("kube-api-access-")
    assert len(volume["name"]) == len("kube-api-access-xxxxx")
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
    }
    mount = {"name": volume["name"], "readOnly": True, "mountPath": TOKEN_PATH}
    for container in (*spec["containers"], *spec["initContainers"]):
        assert container["volumeMounts"][-1] == mount
    assert [len(c["volumeMounts"]) for c in spec["containers"]] == [1, 2]


async def test_what_is_mounted_there_already_stays() -> None:
    there = [{"name": "mine", "mountPath": TOKEN_PATH}]
    full = pod(initContainers=[])
    for container in full["spec"]["containers"]:
        container["volumeMounts"] = list(there)
    spec = await admitted(full)
    assert "volumes" not in spec
    assert all(container["volumeMounts"] == there for container in spec["containers"])
    # A volume by that name serves the mounts that are missing.
    volume = {"name": "kube-api-access-12345", "emptyDir": {}}
    spec = await admitted(pod(volumes=[volume]))
    assert spec["volumes"] == [volume]
    assert spec["containers"][0]["volumeMounts"][0]["name"] == "kube-api-access-12345"


@pytest.mark.parametrize(
    ("of_pod", "of_account", "mounted"),
    [
        (None, None, True),
        (None, False, False),
        (True, False, True),
        (False, None, False),
        (False, True, False),
    ],
)
async def test_pod_and_account_may_decline(of_pod: Any, of_account: Any, mounted: bool) -> None:
    asked = {} if of_pod is None else {"automountServiceAccountToken": of_pod}
    of = {} if of_account is None else {"automountServiceAccountToken": of_account}
    spec = await admitted(pod(**asked), account(**of))
    assert ("volumes" in spec) is mounted


async def test_pull_secrets_come_from_the_account_unless_the_pod_has_some() -> None:
    of = account(imagePullSecrets=[{"name": "registry"}])
    assert (await admitted(pod(), of))["imagePullSecrets"] == [{"name": "registry"}]
    own = [{"name": "mine"}]
    assert (await admitted(pod(imagePullSecrets=own), of))["imagePullSecrets"] == own
    assert "imagePullSecrets" not in await admitted(pod())


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"serviceAccountName": "x"}, "a mirror pod may not reference service accounts"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "a mirror pod may not reference secrets"),
        ({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]},
         "a mirror pod may not reference secrets"),
        ({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
         "a mirror pod may not use ServiceAccountToken volume projections"),
    ],
)  # fmt: skip
async def test_mirror_pods(spec: Any, told: str) -> None:
    with pytest.raises(Forbidden, match=told):
        await admitted(pod(MIRROR, **spec))
    untouched = await admitted(pod(MIRROR))
    assert "serviceAccountName" not in untouched
    assert "volumes" not in untouched


STRICT = {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}


def env(name: str) -> Any:
    return [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"volumes": [{"name": "v", "secret": {"secretName": "other"}}]},
         'volume with secret.secretName="other" is not allowed because service account default does not reference '
         "that secret"),
        ({"containers": [{"name": "c", "env": env("other")}]},
         'container c with envVar PASSWORD referencing secret.secretName="other" is not allowed because service '
         "account default does not reference that secret"),
        ({"initContainers": [{"name": "c", "envFrom": [{"secretRef": {"name": "other"}}]}]},
         'init container c with envFrom referencing secret.secretName="other" is not allowed'),
        ({"imagePullSecrets": [{"name": "registry"}, {"name": "other"}]},
         'imagePullSecrets[1].name="other" is not allowed because service account default does not reference that '
         "imagePullSecret"),
    ],
)  # fmt: skip
async def test_an_account_may_limit_secrets(spec: Any, told: str) -> None:
    of = account(metadata=STRICT, secrets=[{"name": "mine"}], imagePullSecrets=[{"name": "registry"}])
    with pytest.raises(Forbidden) as caught:
        await admitted(pod(**spec), of)
    assert f'pods "p" is forbidden: {told}' in caught.value.message
    fine = pod(
        containers=[{"name": "c", "env": env("mine")}],
        volumes=[{"name": "v", "secret": {"secretName": "mine"}}],
    )
    await admitted(fine, of)
    # Without the annotation anything goes.
    await admitted(pod(**spec))


async def test_ephemeral_containers_are_limited_as_well() -> None:
    of = account(metadata=STRICT)
    late = pod(serviceAccountName="default", ephemeralContainers=[{"name": "e", "env": env("other")}])
    with pytest.raises(Forbidden, match="ephemeral container e with envVar PASSWORD"):
        await admitted(late, of, operation=Operation.UPDATE, subresource="ephemeralcontainers")


async def test_other_writes_are_left_alone() -> None:
    status = {"operation": Operation.UPDATE, "subresource": "status"}
    for request in ({"operation": Operation.UPDATE}, {"subresource": "binding"}, status):
        assert "volumes" not in await admitted(pod(), **request)
