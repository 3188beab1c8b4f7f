"""Which objects the pods of each node need: the relations the Node authorizer decides by.

Fed from the watch caches of pods, persistent volumes and volume attachments; brought up to date before each use, so a
pod's Secrets may be read as soon as its binding was answered. Called by `node.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controlplane.apiserver.authz.follower import CacheSource, Follower
from controlplane.errors import Object
from controlplane.meta.objects import dig

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_NAMED_SECRETS = (
    ("azureFile", "secretName"),
    ("secret", "secretName"),
    ("cephfs", "secretRef", "name"),
    ("flexVolume", "secretRef", "name"),
    ("rbd", "secretRef", "name"),
    ("scaleIO", "secretRef", "name"),
    ("iscsi", "secretRef", "name"),
    ("storageos", "secretRef", "name"),
    ("csi", "nodePublishSecretRef", "name"),
)
_VOLUME_SECRETS = (
    ("csi", "controllerPublishSecretRef"),
    ("csi", "nodePublishSecretRef"),
    ("csi", "nodeStageSecretRef"),
    ("csi", "nodeExpandSecretRef"),
    ("cephfs", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("storageos", "secretRef"),
)

Vertex = tuple[str, str, str]
"""(plural, namespace, name)."""
Edges = Callable[[Object], Iterator[tuple[Vertex, str]]]
"""An object -> what it needs, and for whom; each pair at most once."""


@dataclass(frozen=True, slots=True)
class NodeCaches:
    """The caches of pods, PersistentVolumes and VolumeAttachments."""

    pods: CacheSource
    volumes: CacheSource
    attachments: CacheSource


class _Needs:
    """How often each vertex is needed by each target, over the objects of one cache."""

    def __init__(self, source: CacheSource, edges: Edges) -> None:
        self._edges = edges
        self._needs: dict[Vertex, Counter[str]] = {}
        self._follower = Follower(
            source, lambda obj: self._count(obj, 1), lambda obj: self._count(obj, -1), self._needs.clear
        )

    def of(self, vertex: Vertex) -> Counter[str]:
        self._follower.refresh()
        return self._needs.get(vertex, _NOBODY)

    def _count(self, obj: Object, step: int) -> None:
        for vertex, target in self._edges(obj):
            counter = self._needs.setdefault(vertex, Counter())
            counter[target] += step
            if counter[target] <= 0:
                del counter[target]
            if not counter:
                del self._needs[vertex]


_NOBODY: Counter[str] = Counter()


def _pod_edges(pod: Object) -> Iterator[tuple[Vertex, str]]:
    """What a pod refers to, needed by its node."""
    spec, metadata = pod.get("spec") or {}, pod["metadata"]
    node = spec.get("nodeName")
    if not node:
        return
    namespace = metadata.get("namespace", "")
    yield ("pods", namespace, metadata["name"]), node
    if MIRROR_ANNOTATION in (metadata.get("annotations") or {}):
        # A node writes its mirror pods itself: they must not open anything.
        return
    for plural, name in references(pod):
        yield (plural, namespace, name), node


def _volume_edges(volume: Object) -> Iterator[tuple[Vertex, str]]:
    """A volume's secrets, needed by the volume (its name)."""
    claim = dig(volume, "spec", "claimRef", default=None) or {}
    secrets = {
        (found.get("namespace") or claim.get("namespace", ""), found["name"])
        for path in _VOLUME_SECRETS
        if (found := dig(volume, "spec", *path, default=None) or {}).get("name")
    }
    for namespace, name in secrets:
        yield ("secrets", namespace, name), volume["metadata"]["name"]


def references(pod: Object) -> set[tuple[str, str]]:
    """(plural, name) of everything in its namespace the pod needs on its node."""
    spec = pod.get("spec") or {}
    found = {("serviceaccounts", spec.get("serviceAccountName") or "")}
    found |= {("secrets", each.get("name", "")) for each in spec.get("imagePullSecrets") or ()}
    for key in _CONTAINERS:
        for container in spec.get(key) or ():
            found |= _container_references(container)
    for volume in spec.get("volumes") or ():
        found |= _volume_references(pod, volume)
    return {(plural, name) for plural, name in found if name}


def _container_references(container: Object) -> set[tuple[str, str]]:
    found = set()
    for source in container.get("envFrom") or ():
        found.add(("secrets", dig(source, "secretRef", "name", default="")))
        found.add(("configmaps", dig(source, "configMapRef", "name", default="")))
    for variable in container.get("env") or ():
        found.add(("secrets", dig(variable, "valueFrom", "secretKeyRef", "name", default="")))
        found.add(("configmaps", dig(variable, "valueFrom", "configMapKeyRef", "name", default="")))
    return found


def _volume_references(pod: Object, volume: Object) -> set[tuple[str, str]]:
    found = {("secrets", dig(volume, *path, default="")) for path in _NAMED_SECRETS}
    found.add(("configmaps", dig(volume, "configMap", "name", default="")))
    found.add(("persistentvolumeclaims", dig(volume, "persistentVolumeClaim", "claimName", default="")))
    if volume.get("ephemeral"):
        found.add(("persistentvolumeclaims", f"{pod['metadata']['name']}-{volume['name']}"))
    for source in dig(volume, "projected", "sources", default=()) or ():
        found.add(("secrets", dig(source, "secret", "name", default="")))
        found.add(("configmaps", dig(source, "configMap", "name", default="")))
    return found


class NodeGraph:
    """Answers whether a node needs an object. Knows nothing before `follow`."""

    def __init__(self) -> None:
        self._caches: NodeCaches | None = None
        self._pods: _Needs | None = None
        self._volumes: _Needs | None = None

    def follow(self, caches: NodeCaches) -> None:
        """Decide by these caches from now on."""
        self._caches = caches
        self._pods = _Needs(caches.pods, _pod_edges)
        self._volumes = _Needs(caches.volumes, _volume_edges)

    def needs(self, node: str, plural: str, namespace: str, name: str) -> bool:
        """Whether a pod of `node` needs the object, directly or through its claim and volume."""
        if self._pods is None or self._volumes is None or self._caches is None:
            return False
        if plural == "persistentvolumes":
            return self._needs_volume(node, name)
        if plural == "volumeattachments":
            found = self._caches.attachments().get("", name)
            return found is not None and dig(found.object, "spec", "nodeName", default="") == node
        vertex = (plural, namespace, name)
        if node in self._pods.of(vertex):
            return True
        if plural != "secrets":
            return False
        return any(self._needs_volume(node, volume) for volume in self._volumes.of(vertex))

    def _needs_volume(self, node: str, name: str) -> bool:
        found = self._caches.volumes().get("", name) if self._caches is not None else None
        claim = dig(found.object, "spec", "claimRef", default=None) if found is not None else None
        if not claim or self._pods is None:
            return False
        vertex = ("persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", ""))
        return node in self._pods.of(vertex)
