"""ServiceAccount: every pod runs with an account of its namespace, and finds its token where clients look for it.

A pod that names no account gets `default`. Unless pod or account decline, each container gets the volume
`kube-api-access-...`: a token of the account, the cluster's certificate and the namespace's name.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object
from controlplane.meta.names import generate_name

DEFAULT_ACCOUNT = "default"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
ENFORCE_ANNOTATION = "kubernetes.io/enforce-mountable-secrets"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
_VOLUME_PREFIX = "kube-api-access-"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_TRIES = 10
"""Looks for the account `default`, which a controller makes a moment after its namespace."""


class ServiceAccountAdmission:
    """See `plugin.AdmissionPlugin`. `pause` is the time in seconds between two looks, doubled at random."""

    def __init__(self, pause: float = 0.1) -> None:
        self._pause = pause

    async def admit(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if (request.kind.group, request.kind.plural) != ("", "pods") or pod is None:
            return
        if request.operation is Operation.UPDATE and request.subresource == "ephemeralcontainers":
            await self._check_ephemeral(request, pod)
            return
        if request.operation is not Operation.CREATE or request.subresource:
            return
        spec = pod.setdefault("spec", {})
        if MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {}):
            _check_mirror(request, spec)
            return
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(request, name)
        if _automounts(account, spec):
            _mount_token(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{**reference} for reference in account["imagePullSecrets"]]
        if _enforces(account):
            _limit_secrets(request, account, spec, _containers(spec))

    async def _account(self, request: AdmissionRequest, name: str) -> Object:
        """The account. Raises Forbidden when it is not there."""
        for number in range(_TRIES if name == DEFAULT_ACCOUNT else 1):
            if number:
                await asyncio.sleep(self._pause * random.uniform(1.0, 2.0))
            account = await request.lookup("", "serviceaccounts", request.namespace, name)
            if account is not None:
                return account
        raise request.forbid(
            f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
        )

    async def _check_ephemeral(self, request: AdmissionRequest, pod: Object) -> None:
        spec = pod.get("spec") or {}
        name = spec.get("serviceAccountName")
        if not name or not spec.get("ephemeralContainers"):
            return
        account = await self._account(request, name)
        if _enforces(account):
            containers = [("ephemeral container", container) for container in spec["ephemeralContainers"]]
            _limit_secrets(request, account, {}, iter(containers))


def _check_mirror(request: AdmissionRequest, spec: Object) -> None:
    """A mirror pod is the image of one that the kubelet runs by itself: what lives in the API is not for it."""
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        raise request.forbid("a mirror pod may not reference service accounts")
    volumes = spec.get("volumes") or ()
    sources = [part for volume in volumes for part in (volume.get("projected") or {}).get("sources") or ()]
    uses_secrets = (
        any(volume.get("secret") for volume in volumes)
        or any(part.get("secret") for part in sources)
        or bool(spec.get("imagePullSecrets"))
        or any(True for _, container in _containers(spec) for _ in _secrets_of(container))
    )
    if uses_secrets:
        raise request.forbid("a mirror pod may not reference secrets")
    if any(part.get("serviceAccountToken") for part in sources):
        raise request.forbid("a mirror pod may not use ServiceAccountToken volume projections")


def _automounts(account: Object, spec: Object) -> bool:
    """The pod's wish, else the account's, else yes."""
    for wish in (spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")):
        if wish is not None:
            return bool(wish)
    return True


def _mount_token(spec: Object) -> None:
    """The volume and its mounts; containers that mount something of their own there keep it."""
    volumes = spec.get("volumes") or []
    present = next((str(volume.get("name")) for volume in volumes
                    if str(volume.get("name", "")).startswith(_VOLUME_PREFIX)), "")  # fmt: skip
    name = present or generate_name(_VOLUME_PREFIX)
    is_needed = False
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mounts = container.get("volumeMounts") or []
        if any(mount.get("mountPath") == TOKEN_PATH for mount in mounts):
            continue
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}]
        is_needed = True
    if is_needed and not present:
        spec["volumes"] = [*volumes, {"name": name, "projected": _token_source()}]


def _token_source() -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    certificate = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": certificate},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 0o644,
    }


def _enforces(account: Object) -> bool:
    return (account["metadata"].get("annotations") or {}).get(ENFORCE_ANNOTATION) in _TRUE


def _containers(spec: Object) -> Iterator[tuple[str, Object]]:
    """Every container and what messages call its sort."""
    for word, field in (("init container", "initContainers"), ("container", "containers")):
        for container in spec.get(field) or ():
            yield word, container


def _secrets_of(container: Object) -> Iterator[tuple[str, str]]:
    """How a container's environment refers to Secrets, and which."""
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference:
            yield f"envVar {variable.get('name', '')}", str(reference.get("name", ""))
    for source in container.get("envFrom") or ():
        if source.get("secretRef"):
            yield "envFrom", str(source["secretRef"].get("name", ""))


def _limit_secrets(
    request: AdmissionRequest, account: Object, spec: Object, containers: Iterator[tuple[str, Object]]
) -> None:
    """Only Secrets that the account lists. Raises Forbidden."""
    owner = account["metadata"]["name"]
    allowed = {reference.get("name") for reference in account.get("secrets") or ()}
    pulls = {reference.get("name") for reference in account.get("imagePullSecrets") or ()}
    reason = f"because service account {owner} does not reference that"
    for volume in spec.get("volumes") or ():
        name = (volume.get("secret") or {}).get("secretName")
        if volume.get("secret") and name not in allowed:
            raise request.forbid(f'volume with secret.secretName="{name}" is not allowed {reason} secret')
    for word, container in containers:
        for usage, name in _secrets_of(container):
            if name not in allowed:
                raise request.forbid(
                    f'{word} {container.get("name", "")} with {usage} referencing secret.secretName="{name}" '
                    f"is not allowed {reason} secret"
                )
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if reference.get("name") not in pulls:
            raise request.forbid(
                f'imagePullSecrets[{index}].name="{reference.get("name")}" is not allowed {reason} imagePullSecret'
            )
