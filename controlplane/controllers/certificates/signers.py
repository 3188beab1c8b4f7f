"""The signers Kubernetes knows, and which requests each of them takes. Pure.

Rules and texts are upstream's (`pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer`, v1.32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
_NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
_NAME_KINDS: Sequence[tuple[type[x509.GeneralName], str]] = (
    (x509.DNSName, "DNS"),
    (x509.RFC822Name, "Email"),
    (x509.IPAddress, "IP"),
    (x509.UniformResourceIdentifier, "URI"),
)
_KUBELET_CLIENT_USAGES = ("client auth", "digital signature", "key encipherment")
_KUBELET_SERVING_USAGES = ("digital signature", "key encipherment", "server auth")


def subject_values(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(entry.value) for entry in request.subject.get_attributes_for_oid(oid)]


def common_name(request: x509.CertificateSigningRequest) -> str:
    return ([*subject_values(request, NameOID.COMMON_NAME), ""])[0]


def _alternative_names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _has(request: x509.CertificateSigningRequest, kind: type[x509.GeneralName]) -> bool:
    names = _alternative_names(request)
    return names is not None and any(isinstance(name, kind) for name in names)


def kubelet_client_fault(request: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    """Why it is no request of a kubelet as a client, "" when it is one."""
    if subject_values(request, NameOID.ORGANIZATION_NAME) != [_NODES]:
        return "subject organization is not system:nodes"
    for kind, word in _NAME_KINDS:
        if _has(request, kind):
            return f"{word} subjectAltNames are not allowed"
    return _node_fault(request, usages, _KUBELET_CLIENT_USAGES)


def kubelet_serving_fault(request: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    if subject_values(request, NameOID.ORGANIZATION_NAME) != [_NODES]:
        return "subject organization is not system:nodes"
    if not (_has(request, x509.DNSName) or _has(request, x509.IPAddress)):
        return "DNS or IP subjectAltName is required"
    if _has(request, x509.RFC822Name):
        return "Email subjectAltNames are not allowed"
    if _has(request, x509.UniformResourceIdentifier):
        return "URI subjectAltNames are not allowed"
    return _node_fault(request, usages, _KUBELET_SERVING_USAGES)


def _node_fault(request: x509.CertificateSigningRequest, usages: Sequence[str], wanted: Sequence[str]) -> str:
    if set(usages) not in (set(wanted), set(wanted) - {"key encipherment"}):
        return f"usages did not match [{' '.join(wanted)}]"
    if not common_name(request).startswith(_NODE_PREFIX):
        return "subject common name does not begin with system:node:"
    return ""


def _client_fault(request: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    allowed = {"client auth", "digital signature", "key encipherment"}
    if "client auth" not in usages or not set(usages) <= allowed:
        return f"invalid usages for client certificate: [{' '.join(usages)}]"
    return ""


def _no_fault(request: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    return ""


Judge = Callable[[x509.CertificateSigningRequest, Sequence[str]], str]

SIGNERS: Mapping[str, Judge] = {
    CLIENT: _client_fault,
    KUBELET_CLIENT: kubelet_client_fault,
    KUBELET_SERVING: kubelet_serving_fault,
    LEGACY_UNKNOWN: _no_fault,
}
"""Signer -> why it refuses a request with these usages ("" = it takes it)."""
