"""NodeRestriction: a kubelet writes its own Node, Lease and CSINode, and its own pods; nothing else.

The part of the Node authorizer that needs to see objects. Rules and texts of
`plugin/pkg/admission/noderestriction`, v1.32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.authz.node import LEASES, identity
from controlplane.apiserver.authz.node_graph import MIRROR_ANNOTATION, references
from controlplane.errors import Object, not_found
from controlplane.meta.objects import dig
from controlplane.resources.fieldpath import quoted
from controlplane.resources.rules import same

RESTRICTED = "node-restriction.kubernetes.io"
_SIGNERS = frozenset({"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"})
_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "beta.kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/arch",
    }
)
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResourceStatuses", "allocatedResources")


class NodeRestriction:
    """See `plugin.AdmissionPlugin`."""

    async def admit(self, request: AdmissionRequest) -> None:
        node, is_node = identity(request.user)
        if not is_node:
            return
        if not node:
            raise request.forbid(f"could not determine node from user {quoted(request.user.name)}")
        match request.kind.group, request.kind.plural:
            case "", "pods":
                await _pod(request, node)
            case "", "nodes":
                _node(request, node)
            case "", "persistentvolumeclaims":
                _claim(request, node)
            case "", "serviceaccounts":
                await _token(request, node)
            case "coordination.k8s.io", "leases":
                if request.namespace != LEASES:
                    raise request.forbid(f'can only access leases in the "{LEASES}" system namespace')
                _own_name(request, node, "node lease")
            case "storage.k8s.io", "csinodes":
                _own_name(request, node, "CSINode")
            case "certificates.k8s.io", "certificatesigningrequests":
                _signing_request(request, node)


async def _pod(request: AdmissionRequest, node: str) -> None:
    match request.subresource:
        case "":
            await _whole_pod(request, node)
        case "status":
            _pod_status(request, node)
        case "eviction":
            if request.operation is not Operation.CREATE:
                raise request.forbid(f"unexpected operation {request.operation}")
            if _node_of(await _existing_pod(request, request.name)) != node:
                raise request.forbid(f"node {node} can only evict pods with spec.nodeName set to itself")
        case other:
            raise request.forbid(
                f"unexpected pod subresource {quoted(other)}, only 'status' and 'eviction' are allowed"
            )


async def _existing_pod(request: AdmissionRequest, name: str) -> Object:
    if request.old is not None and request.kind.plural == "pods":
        return request.old
    pod = await request.lookup("", "pods", request.namespace, name)
    if pod is None:
        raise not_found("pods", "", name)
    return pod


def _node_of(pod: Object) -> str:
    return str(dig(pod, "spec", "nodeName", default=""))


async def _whole_pod(request: AdmissionRequest, node: str) -> None:
    if request.operation is Operation.DELETE:
        if _node_of(await _existing_pod(request, request.name)) != node:
            raise request.forbid(f'node "{node}" can only delete pods with spec.nodeName set to itself')
        return
    if request.operation is not Operation.CREATE or request.obj is None:
        raise request.forbid(
            f'unexpected operation "{request.operation}", node "{node}" can only create and delete mirror pods'
        )
    pod = request.obj
    if MIRROR_ANNOTATION not in (pod["metadata"].get("annotations") or {}):
        raise request.forbid(
            f'pod does not have "{MIRROR_ANNOTATION}" annotation, node "{node}" can only create mirror pods'
        )
    if _node_of(pod) != node:
        raise request.forbid(f'node "{node}" can only create pods with spec.nodeName set to itself')
    await _mirror_owner(request, pod, node)
    _mirror_references(request, pod, node)


async def _mirror_owner(request: AdmissionRequest, pod: Object, node: str) -> None:
    owners = pod["metadata"].get("ownerReferences") or []
    may = f'node "{node}" can only create pods with'
    if len(owners) > 1:
        raise request.forbid(f"{may} a single owner reference set to itself")
    owner = owners[0] if owners else {}
    if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
        raise request.forbid(f"{may} an owner reference set to itself")
    if not owner.get("controller"):
        raise request.forbid(f"{may} a controller owner reference set to itself")
    if owner.get("blockOwnerDeletion"):
        raise request.forbid(f'node "{node}" must not set blockOwnerDeletion on an owner reference')
    found = await request.lookup("", "nodes", "", node)
    if found is None:
        raise not_found("nodes", "", node)
    given, uid = owner.get("uid", ""), found["metadata"].get("uid", "")
    if given != uid:
        raise request.forbid(f"node {node} UID mismatch: expected {given} got {uid}")


def _mirror_references(request: AdmissionRequest, pod: Object, node: str) -> None:
    cannot = f'node "{node}" can not create pods that reference'
    plurals = {plural for plural, _ in references(pod)}
    volumes = dig(pod, "spec", "volumes", default=()) or ()
    bundles = any(
        source.get("clusterTrustBundle")
        for volume in volumes
        for source in dig(volume, "projected", "sources", default=()) or ()
    )
    if "serviceaccounts" in plurals:
        raise request.forbid(f"{cannot} a service account")
    for plural in ("secrets", "configmaps"):
        if plural in plurals:
            raise request.forbid(f"{cannot} {plural}")
    if bundles:
        raise request.forbid(f"{cannot} clustertrustbundles")
    if any(volume.get("persistentVolumeClaim") for volume in volumes):
        raise request.forbid(f"{cannot} persistentvolumeclaims")


def _pod_status(request: AdmissionRequest, node: str) -> None:
    new, old = request.obj, request.old
    if request.operation is not Operation.UPDATE or new is None or old is None:
        raise request.forbid(f'unexpected operation "{request.operation}"')
    if _node_of(old) != node:
        raise request.forbid(
            f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
        )
    if not same(new["metadata"].get("labels"), old["metadata"].get("labels")):
        raise request.forbid(f'node "{node}" cannot update labels through pod status')
    claims = ("status", "resourceClaimStatuses")
    if not same(dig(new, *claims, default=None), dig(old, *claims, default=None)):
        raise request.forbid(f'node "{node}" cannot update resource claim statues')


def _node(request: AdmissionRequest, node: str) -> None:
    new, old = request.obj, request.old
    name = request.name or (str(new["metadata"].get("name", "")) if new is not None else "")
    if name != node:
        raise request.forbid(f'node "{node}" is not allowed to modify node "{name}"')
    if new is None:
        return
    source = dig(new, "spec", "configSource", default=None)
    if old is None:
        if source is not None:
            raise request.forbid(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        bad = _forbidden_labels(_changed_labels(new, {}))
        if bad:
            raise request.forbid(
                f'node "{node}" is not allowed to set the following labels: {", ".join(bad)}'
            )
        return
    if source is not None and not same(source, dig(old, "spec", "configSource", default=None)):
        raise request.forbid(
            f'node "{node}" is not allowed to update configSource to a new non-nil configSource'
        )
    if not same(dig(new, "spec", "taints", default=None), dig(old, "spec", "taints", default=None)):
        raise request.forbid(f'node "{node}" is not allowed to modify taints')
    bad = _forbidden_labels(_changed_labels(new, old))
    if bad:
        raise request.forbid(f"is not allowed to modify labels: {', '.join(bad)}")


def _changed_labels(new: Object, old: Mapping[str, Object]) -> set[str]:
    after = new["metadata"].get("labels") or {}
    before = (old.get("metadata") or {}).get("labels") or {}
    return {key for key in after.keys() | before.keys() if after.get(key) != before.get(key)}


def _forbidden_labels(labels: Iterable[str]) -> list[str]:
    return sorted(label for label in labels if _is_forbidden(label))


def _is_forbidden(label: str) -> bool:
    namespace, slash, _ = label.partition("/")
    if not slash:
        return False
    if _below(namespace, RESTRICTED):
        return True
    kubernetes = _below(namespace, "kubernetes.io") or _below(namespace, "k8s.io")
    kubelet = label in _KUBELET_LABELS or any(_below(namespace, each) for each in _KUBELET_NAMESPACES)
    return kubernetes and not kubelet


def _below(namespace: str, domain: str) -> bool:
    return namespace == domain or namespace.endswith(f".{domain}")


def _claim(request: AdmissionRequest, node: str) -> None:
    if request.subresource != "status":
        raise request.forbid("may only update PVC status")
    new, old = request.obj, request.old
    if request.operation is not Operation.UPDATE or new is None or old is None:
        raise request.forbid(f'unexpected operation "{request.operation}"')
    if not same(_without_size(new), _without_size(old)):
        raise request.forbid(
            f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions'
        )


def _without_size(claim: Object) -> Object:
    metadata = {
        key: value
        for key, value in claim["metadata"].items()
        if key not in ("resourceVersion", "managedFields")
    }
    status = {key: value for key, value in (claim.get("status") or {}).items() if key not in _CLAIM_STATUS}
    return {**claim, "metadata": metadata, "status": status}


async def _token(request: AdmissionRequest, node: str) -> None:
    if request.operation is not Operation.CREATE or request.subresource != "token":
        return
    reference = dig(request.obj or {}, "spec", "boundObjectRef", default=None) or {}
    if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not reference.get("name"):
        raise request.forbid("node requested token not bound to a pod")
    uid = reference.get("uid", "")
    if not uid:
        raise request.forbid("node requested token with a pod binding without a uid")
    pod = await _existing_pod(request, reference["name"])
    if uid != pod["metadata"].get("uid"):
        raise request.forbid(
            f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
    if _node_of(pod) != node:
        raise request.forbid("node requested token bound to a pod scheduled on a different node")


def _own_name(request: AdmissionRequest, node: str, what: str) -> None:
    name = request.name
    if request.operation is Operation.CREATE and request.obj is not None:
        name = str(request.obj["metadata"].get("name", ""))
    if name != node:
        raise request.forbid(f"can only access {what} with the same name as the requesting node")


def _signing_request(request: AdmissionRequest, node: str) -> None:
    if request.operation is not Operation.CREATE or request.obj is None or request.subresource:
        return
    if dig(request.obj, "spec", "signerName", default="") not in _SIGNERS:
        return
    try:
        name = _common_name(str(dig(request.obj, "spec", "request", default="")))
    except ValueError as error:
        raise request.forbid(f"unable to parse csr: {error}") from error
    if name != f"system:node:{node}":
        raise request.forbid(f"can only create a node CSR with CN=system:node:{node}")


def _common_name(request: str) -> str:
    """The common name in a CSR (base64 of PEM). Raises ValueError."""
    import base64

    from cryptography import x509
    from cryptography.x509.oid import NameOID

    csr = x509.load_pem_x509_csr(base64.b64decode(request, validate=True))
    names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""
