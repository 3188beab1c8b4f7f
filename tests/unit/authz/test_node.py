"""The Node authorizer and NodeRestriction: what a kubelet may do, and the words when it may not."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.policy import World, user

from controlplane.apiserver.admission.node_restriction import NodeRestriction
from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.registry import LOOPBACK_USER, DeleteOptions, WriteOptions
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Forbidden, Object, StatusError
from controlplane.meta.objects import clone
from controlplane.resources.catalog import NODE, POD, SERVICE_ACCOUNT, by_plural
from controlplane.resources.kind import Kind

N1 = user("system:node:n1", "system:nodes")
N2 = user("system:node:n2", "system:nodes")


def pod(name: str, node: str = "", namespace: str = "default", **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceAccountName": "robot",
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "env": [
                        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}},
                    ],
                    "envFrom": [
                        {"secretRef": {"name": "from-secret"}},
                        {"configMapRef": {"name": "from-map"}},
                    ],
                }
            ],
            "initContainers": [
                {"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "init-secret"}}]}
            ],
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol-secret"}},
                {"name": "b", "configMap": {"name": "vol-map"}},
                {
                    "name": "p",
                    "projected": {
                        "sources": [{"secret": {"name": "proj-secret"}}, {"configMap": {"name": "proj-map"}}]
                    },
                },
                {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
            ],
            **({"nodeName": node} if node else {}),
            **spec,
        },
    }


SECRETS = ("env-secret", "from-secret", "init-secret", "pull", "vol-secret", "proj-secret")
MAPS = ("env-map", "from-map", "vol-map", "proj-map")


async def test_a_node_reads_what_its_pods_need_while_they_are_there(world: World) -> None:
    await world.create(pod("p", "n1"))
    needed = [*(("secrets", n) for n in SECRETS), *(("configmaps", n) for n in MAPS)]
    needed += [("persistentvolumeclaims", "claim"), ("pods", "p")]
    for resource, name in needed:
        assert await world.may(N1, "get", resource, "default", name), name
        assert not await world.may(N2, "get", resource, "default", name), name
        assert not await world.may(N1, "get", resource, "other", name), name
        assert not await world.may(N1, "delete", resource, "default", name) or resource == "pods"
    assert await world.may(N1, "watch", "secrets", "default", "env-secret")
    assert await world.may(N1, "create", "serviceaccounts/token", "default", "robot")
    assert not await world.may(N2, "create", "serviceaccounts/token", "default", "robot")
    await world.registry.delete(POD, "default", "p", DeleteOptions(user=LOOPBACK_USER, grace_seconds=0))
    assert not await world.may(N1, "get", "secrets", "default", "env-secret")
    assert not await world.may(N1, "get", "pods", "default", "p")


async def test_a_pod_without_a_node_opens_nothing_until_it_is_bound(world: World) -> None:
    await world.create(pod("p"))
    assert not await world.may(N1, "get", "secrets", "default", "env-secret")
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    await world.registry.bind("default", "p", binding, WriteOptions(user=LOOPBACK_USER))
    assert await world.may(N1, "get", "secrets", "default", "env-secret")


async def test_two_pods_may_need_the_same(world: World) -> None:
    await world.create(pod("a", "n1"))
    await world.create(pod("b", "n2"))
    await world.create(pod("c", "n1"))
    options = DeleteOptions(user=LOOPBACK_USER, grace_seconds=0)
    await world.registry.delete(POD, "default", "a", options)
    assert await world.may(N1, "get", "secrets", "default", "pull")
    await world.registry.delete(POD, "default", "c", options)
    assert not await world.may(N1, "get", "secrets", "default", "pull")
    assert await world.may(N2, "get", "secrets", "default", "pull")


REFUSED = (

        ("list", "secrets", "default", "", "", "No Object name found"),
        ("list", "secrets", "", "", "", "can only read namespaced object of this type"),
        ("create", "secrets", "default", "x", "", "can only read resources of this type"),
        ("get", "configmaps", "default", "x", "", "no relationship found between node 'n1' and this object"),
        ("list", "persistentvolumes", "", "", "", "can only get individual resources of this type"),
        ("update", "serviceaccounts", "default", "robot", "",
         "can only create tokens for individual service accounts"),
        ("create", "serviceaccounts", "default", "robot", "",
         "can only create token subresource of serviceaccount"),
        ("list", "leases.coordination.k8s.io", "kube-node-lease", "", "",
         "can only get, create, update, patch, or delete a node lease"),
        ("get", "leases.coordination.k8s.io", "default", "n1", "",
         'can only access leases in the "kube-node-lease" system namespace'),
        ("get", "leases.coordination.k8s.io", "kube-node-lease", "n2", "",
         "can only access node lease with the same name as the requesting node"),
        ("get", "csinodes.storage.k8s.io", "", "n2", "",
         "can only access CSINode with the same name as the requesting node"),
        ("list", "nodes", "", "", "", "node 'n1' cannot read all nodes, only its own Node object"),
        ("get", "nodes", "", "n2", "", "node 'n1' cannot read 'n2', only its own Node object"),
        ("delete", "nodes", "", "n1", "", ""),
        ("list", "pods", "", "", "", "can only list/watch pods with spec.nodeName field selector"),
        ("list", "pods", "", "", "spec.nodeName=n2",
         "can only list/watch pods with spec.nodeName field selector"),
        ("watch", "pods", "", "", "spec.nodeName!=n1",
         "can only list/watch pods with spec.nodeName field selector"),
        ("update", "pods", "default", "p", "", ""),
        ("get", "deployments.apps", "default", "x", "", ""),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", "", "", ""),
)  # fmt: skip


async def test_what_a_node_may_not(world: World) -> None:
    for verb, what, namespace, name, fields, reason in REFUSED:
        decision = await world.decide(N1, verb, what, namespace, name, fields)
        assert (decision.allowed, decision.reason) == (False, reason), (verb, what, name)


ALLOWED = (
    ("list", "pods", "", "", "spec.nodeName=n1"),
    ("watch", "pods", "", "", "status.phase!=Failed,spec.nodeName=n1"),
    ("get", "nodes", "", "n1", ""),
    ("patch", "nodes/status", "", "n1", ""),
    ("create", "nodes", "", "", ""),
    ("update", "pods/status", "default", "p", ""),
    ("create", "pods/eviction", "default", "p", ""),
    ("update", "leases.coordination.k8s.io", "kube-node-lease", "n1", ""),
    ("list", "services", "", "", ""),
    ("create", "events", "default", "", ""),
    ("create", "subjectaccessreviews.authorization.k8s.io", "", "", ""),
    ("get", "csinodes.storage.k8s.io", "", "n1", ""),
)


async def test_what_a_node_may(world: World) -> None:
    for verb, what, namespace, name, fields in ALLOWED:
        decision = await world.decide(N1, verb, what, namespace, name, fields)
        assert (decision.allowed, decision.source) == (True, "Node"), (verb, what, name)


async def test_who_is_a_node(world: World) -> None:
    asked = ("get", "nodes", "", "n1")
    assert not await world.may(user("system:node:n1"), *asked)
    assert not await world.may(user("n1", "system:nodes"), *asked)
    decision = await world.decide(user("system:node:", "system:nodes"), *asked)
    assert decision.reason == 'unknown node for user "system:node:"'


async def test_volumes_and_their_secrets(world: World) -> None:
    await world.create(pod("p", "n1"))
    volume: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pv"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "default", "name": "claim"},
            "csi": {
                "driver": "d",
                "volumeHandle": "h",
                "nodeStageSecretRef": {"namespace": "other", "name": "stage"},
            },
        },
    }
    await world.create(volume)
    attachment: Object = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": "va"},
        "spec": {"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
    }
    await world.create(attachment)
    for who, expected in ((N1, True), (N2, False)):
        assert await world.may(who, "get", "persistentvolumes", "", "pv") is expected
        assert await world.may(who, "get", "secrets", "other", "stage") is expected
        assert await world.may(who, "get", "volumeattachments.storage.k8s.io", "", "va") is expected


async def refused(world: World, obj: Object, who: object = N1) -> str:
    with pytest.raises(StatusError) as caught:
        await world.create(obj, who)  # type: ignore[arg-type]
    assert isinstance(caught.value, Forbidden), caught.value
    return caught.value.message


def mirror(uid: str, **spec: object) -> Object:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "static",
            "namespace": "default",
            "annotations": {"kubernetes.io/config.mirror": "h"},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], **spec},
    }


async def test_a_node_writes_itself_only(world: World) -> None:
    node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}
    assert await refused(world, node) == (
        'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    )
    bad = {"node-restriction.kubernetes.io/x": "1", "node-role.kubernetes.io/control-plane": "", "a": "b"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": bad}}
    assert await refused(world, node) == (
        'nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: '
        "node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane"
    )
    node["metadata"]["labels"] = {
        "kubernetes.io/hostname": "n1", "kubelet.kubernetes.io/x": "1", "node.kubernetes.io/y": "1", "a": "b",
    }  # fmt: skip
    node["spec"] = {"taints": [{"key": "k", "effect": "NoSchedule"}]}
    stored = await world.create(node, N1)
    options = WriteOptions(user=N1)

    async def change(edit: object) -> str:
        copy = clone(stored)
        edit(copy)  # type: ignore[operator]
        with pytest.raises(Forbidden) as caught:
            await world.registry.update(NODE, "", "n1", copy, options)
        return caught.value.message

    assert await change(lambda n: n["spec"].pop("taints")) == (
        'nodes "n1" is forbidden: node "n1" is not allowed to modify taints'
    )
    assert await change(lambda n: n["metadata"]["labels"].update({"x.k8s.io/y": "1"})) == (
        'nodes "n1" is forbidden: is not allowed to modify labels: x.k8s.io/y'
    )
    free = clone(stored)
    free["metadata"]["labels"]["a"] = "c"
    await world.registry.update(NODE, "", "n1", free, options)


async def test_mirror_pods(world: World) -> None:
    node = await world.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    uid = node["metadata"]["uid"]
    assert (await refused(world, pod("p", "n1"))).endswith(
        'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods'
    )
    for edit, words in (
        ({"nodeName": "n2"}, 'node "n1" can only create pods with spec.nodeName set to itself'),
        ({"serviceAccountName": "s"}, 'node "n1" can not create pods that reference a service account'),
        ({"imagePullSecrets": [{"name": "s"}]}, 'node "n1" can not create pods that reference secrets'),
        ({"volumes": [{"name": "v", "configMap": {"name": "m"}}]},
         'node "n1" can not create pods that reference configmaps'),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "m"}}]},
         'node "n1" can not create pods that reference persistentvolumeclaims'),
    ):  # fmt: skip
        assert (await refused(world, mirror(uid, **edit))).endswith(words)
    wrong = mirror("wrong")
    assert (await refused(world, wrong)).endswith(f"node n1 UID mismatch: expected wrong got {uid}")
    orphan = mirror(uid)
    del orphan["metadata"]["ownerReferences"]
    assert (await refused(world, orphan)).endswith("an owner reference set to itself")
    free = mirror(uid)
    free["metadata"]["ownerReferences"][0]["controller"] = False
    assert (await refused(world, free)).endswith("a controller owner reference set to itself")
    await world.create(mirror(uid), N1)


async def test_pods_of_other_nodes_are_out_of_reach(world: World) -> None:
    stored = await world.create(pod("p", "n2"))
    with pytest.raises(Forbidden, match=r"can only delete pods with spec\.nodeName set to itself"):
        await world.registry.delete(POD, "default", "p", DeleteOptions(user=N1))
    options = WriteOptions(user=N1)
    status = {**stored, "status": {"phase": "Running"}}
    with pytest.raises(Forbidden, match=r"can only update pod status for pods with spec\.nodeName set"):
        await world.registry.update(POD, "default", "p", clone(status), options, "status")
    with pytest.raises(Forbidden, match='unexpected operation "UPDATE"'):
        await world.registry.update(POD, "default", "p", clone(stored), options)
    await world.registry.update(POD, "default", "p", clone(status), WriteOptions(user=N2), "status")


async def test_leases(world: World) -> None:
    def lease(name: str, namespace: str) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"holderIdentity": "n1"},
        }

    assert (await refused(world, lease("n2", "kube-node-lease"))).endswith(
        "can only access node lease with the same name as the requesting node"
    )
    assert (await refused(world, lease("n1", "default"))).endswith(
        'can only access leases in the "kube-node-lease" system namespace'
    )
    await world.create(lease("n1", "kube-node-lease"), N1)


async def test_tokens_are_bound_to_pods_of_the_node(world: World) -> None:
    """The subresource is another's: the plug-in is asked as a create of `serviceaccounts/token` asks it."""
    stored = await world.create(pod("p", "n1"))
    uid = stored["metadata"]["uid"]

    async def ask(reference: Object | None, who: UserInfo = N1) -> str:
        review = {"metadata": {}, "spec": {"boundObjectRef": reference}}
        request = admission(world, SERVICE_ACCOUNT, "default", "robot", review, who, "token")
        try:
            await NodeRestriction().admit(request)
        except Forbidden as error:
            return error.message.partition("is forbidden: ")[2]
        return ""

    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}
    assert await ask(bound) == ""
    assert await ask(None) == "node requested token not bound to a pod"
    assert await ask({**bound, "kind": "Secret"}) == "node requested token not bound to a pod"
    assert await ask({**bound, "uid": ""}) == "node requested token with a pod binding without a uid"
    assert (await ask({**bound, "uid": "x"})).startswith("the UID in the bound object reference (x) does not")
    assert await ask(bound, N2) == "node requested token bound to a pod scheduled on a different node"
    assert await ask(None, user("bob")) == ""


async def test_certificate_requests_name_the_node(world: World) -> None:
    kind = Kind(
        group="certificates.k8s.io", version="v1", kind="CertificateSigningRequest",
        plural="certificatesigningrequests", singular="certificatesigningrequest", namespaced=False,
    )  # fmt: skip

    async def ask(common_name: str, signer: str = "kubernetes.io/kubelet-serving", request: str = "") -> str:
        body = request or csr(common_name)
        obj = {"metadata": {"name": "c"}, "spec": {"signerName": signer, "request": body}}
        try:
            await NodeRestriction().admit(admission(world, kind, "", "c", obj, N1))
        except Forbidden as error:
            return error.message.partition("is forbidden: ")[2]
        return ""

    assert await ask("system:node:n1") == ""
    assert await ask("system:node:n2") == "can only create a node CSR with CN=system:node:n1"
    assert await ask("x", "example.com/other") == ""
    assert (await ask("", request="!")).startswith("unable to parse csr: ")


def csr(common_name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def admission(
    world: World, kind: Kind, namespace: str, name: str, obj: Object, who: UserInfo, subresource: str = ""
) -> AdmissionRequest:
    async def lookup(group: str, plural: str, space: str, wanted: str) -> Object | None:
        found = by_plural(group, "v1", plural)
        stored = world.registry.present_cache(found).get(space, wanted) if found is not None else None
        return stored.object if stored is not None else None

    return AdmissionRequest(
        Operation.CREATE, kind, namespace, name, subresource, obj, None, who, False, lookup
    )
