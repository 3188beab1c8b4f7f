"""Defaults of PodSpec and what hangs below it (`SetDefaults_*` of pkg/apis/core/v1, v1.32). In place,
idempotent.

`default_spec` is what pods and templates share; `default_pod_only` what upstream fills in for pods alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.errors import Object
from controlplane.resources.podspec.claims import default_claim_spec
from controlplane.resources.podspec.quantities import canonical, canonical_text, requests_from_limits

GRACE_SECONDS = 30
SCHEDULER = "default-scheduler"

_FILE_MODE = 0o644
_TOKEN_SECONDS = 3600

_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")

_ISCSI = {"iscsiInterface": "default"}
_RBD = {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}
_AZURE_DISK = {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False}
_SCALE_IO = {"storageMode": "ThinProvisioned", "fsType": "xfs"}

_VOLUME_DEFAULTS: dict[str, Object] = {
    "secret": {"defaultMode": _FILE_MODE},
    "configMap": {"defaultMode": _FILE_MODE},
    "downwardAPI": {"defaultMode": _FILE_MODE},
    "projected": {"defaultMode": _FILE_MODE},
    "hostPath": {"type": ""},
    "iscsi": _ISCSI,
    "rbd": _RBD,
    "azureDisk": _AZURE_DISK,
    "scaleIO": _SCALE_IO,
}


def default_spec(spec: Object) -> None:
    """Everything but what `default_pod_only` does."""
    _fill(spec, {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"})
    _fill(spec, {"terminationGracePeriodSeconds": GRACE_SECONDS, "schedulerName": SCHEDULER})
    _fill(spec, {"securityContext": {}})
    _account_names(spec)
    for container in containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    canonical(spec, "overhead")


def default_pod_only(spec: Object) -> None:
    """What appears in pods and not in templates: requests from limits, service links, host ports."""
    for container in containers(spec):
        requests_from_limits(container)
        if spec.get("hostNetwork"):
            for port in container.get("ports") or ():
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]
    _fill(spec, {"enableServiceLinks": True})


def default_template(template: Object) -> None:
    """A pod template: its spec, and the metadata as Go prints it."""
    meta = template.get("metadata")
    if meta is None:
        meta = template["metadata"] = {}
    meta.setdefault("creationTimestamp", None)
    if template.get("spec") is None:
        template["spec"] = {}
    default_spec(template["spec"])


def containers(spec: Object) -> Iterator[Object]:
    """All containers: init containers, containers, ephemeral containers."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def image_tag(image: str) -> str:
    """The tag of an image reference; `latest` when it has neither tag nor digest, empty with a digest
    alone.
    """
    name, _, digest = image.partition("@")
    tag = name.rsplit("/", 1)[-1].partition(":")[2]
    return tag or ("" if digest else "latest")


def _account_names(spec: Object) -> None:
    """`serviceAccount` is the deprecated name of `serviceAccountName`; both hold the same."""
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def _default_container(container: Object) -> None:
    latest = image_tag(str(container.get("image", ""))) == "latest"
    _fill(
        container,
        {
            "imagePullPolicy": "Always" if latest else "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        },
    )
    if container.get("resources") is None:
        container["resources"] = {}
    for amounts in ("limits", "requests"):
        canonical(container["resources"], amounts)
    for port in container.get("ports") or ():
        _fill(port, {"protocol": "TCP"})
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        _default_field_references(source)
    for name in _PROBES:
        if container.get(name) is not None:
            _default_probe(container[name])
    for name in _HOOKS:
        hook = (container.get("lifecycle") or {}).get(name)
        if hook is not None:
            _default_handler(hook)


def _default_probe(probe: Object) -> None:
    for name, value in _PROBE.items():
        if not probe.get(name):
            probe[name] = value
    _default_handler(probe)


def _default_handler(handler: Object) -> None:
    if handler.get("httpGet") is not None:
        _fill(handler["httpGet"], {"path": "/", "scheme": "HTTP"})
    if handler.get("grpc") is not None:
        handler["grpc"].setdefault("service", "")


def _default_volume(volume: Object) -> None:
    if not any(value is not None for name, value in volume.items() if name != "name"):
        volume["emptyDir"] = {}
    default_sources(volume)
    empty_dir = volume.get("emptyDir")
    if empty_dir is not None and empty_dir.get("sizeLimit") is not None:
        empty_dir["sizeLimit"] = canonical_text(empty_dir["sizeLimit"])
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        _default_field_references(item)
    for source in (volume.get("projected") or {}).get("sources") or ():
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _default_field_references(item)
        if source.get("serviceAccountToken") is not None:
            _fill(source["serviceAccountToken"], {"expirationSeconds": _TOKEN_SECONDS})
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim is not None:
        claim.setdefault("metadata", {}).setdefault("creationTimestamp", None)
        claim["spec"] = claim.get("spec") or {}
        default_claim_spec(claim["spec"])


def default_sources(holder: Object) -> None:
    """What the source of a pod's volume or of a PersistentVolume leaves out."""
    for name, defaults in _VOLUME_DEFAULTS.items():
        source = holder.get(name)
        if source is not None:
            for field, value in defaults.items():
                if source.get(field) is None:
                    source[field] = value


def _default_field_references(holder: Object) -> None:
    """Used in environment variables and in items of downward API volumes."""
    if holder.get("fieldRef") is not None:
        _fill(holder["fieldRef"], {"apiVersion": "v1"})
    if holder.get("resourceFieldRef") is not None:
        reference = holder["resourceFieldRef"]
        reference["divisor"] = canonical_text(reference.get("divisor") or "0")


def _fill(holder: Object, defaults: Object) -> None:
    """Sets what is missing, null or empty text."""
    for name, value in defaults.items():
        if holder.get(name) in (None, ""):
            holder[name] = {} if value == {} else value
