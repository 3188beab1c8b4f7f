"""An API server in memory for tests of clients, controllers and the scheduler: a Transport with switches for
faults.

It does what those tests need of API semantics (revisions, conflicts, status subresources, finalizers,
graceful pods, selectors, watches) and neither defaults nor validates.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from controlplane import errors
from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed, Query, Response, Stream
from controlplane.errors import Object, StatusError
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import clone, dig
from controlplane.meta.timestamps import now
from controlplane.resources import catalog
from controlplane.resources.kind import Kind

Fault = Callable[[str, str, Object | None], StatusError | None]


class FakeApi:
    """`calls` lists (method, path) of every request. Faults: `down`, `reject`, `break_watches`, `hold`,
    `compact`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Object]] = {kind.plural: {} for kind in catalog.KINDS}
        self.revision = 1
        self.oldest = 0
        self.down = False
        self.reject: list[Fault] = []
        self.calls: list[tuple[str, str]] = []
        self.watches = 0
        self._log: list[tuple[int, str, Object | None, Object | None]] = []
        self._changed = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._held: frozenset[str] = frozenset()
        self._generation = 0

    def client(self) -> Client:
        return Client(self)

    # switches

    def break_watches(self) -> None:
        """Cut every open watch."""
        self._generation += 1
        self._wake()

    def compact(self) -> None:
        """Forget history: a watch from anything but the present is too old."""
        self.oldest = self.revision

    def hold(self, *kinds: Kind) -> None:
        """Watches (of these kinds; of all when none is named) deliver nothing until `release`."""
        self._held = frozenset(kind.plural for kind in kinds or catalog.KINDS)
        self._flowing.clear()

    def release(self) -> None:
        self._flowing.set()

    # direct access for tests

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        found = self.objects[kind.plural]
        return [clone(obj) for (space, _), obj in found.items() if not namespace or space == namespace]

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        obj = self.objects[kind.plural].get((namespace, name))
        return clone(obj) if obj is not None else None

    def add(self, kind: Kind, obj: Object, namespace: str = "") -> None:
        """Somebody creates an object."""
        self._create(kind, namespace, clone(obj))

    def edit(self, kind: Kind, name: str, namespace: str, change: Callable[[Object], Any]) -> Object:
        """Change an object, spec and status alike, as one write."""
        obj = clone(self.objects[kind.plural][namespace, name])
        spec = clone(obj.get("spec"))
        change(obj)
        if obj.get("spec") != spec and kind.generation:
            obj["metadata"]["generation"] += 1
        return self._store(kind, namespace, name, obj)

    def remove(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Delete at once, whatever finalizers or grace say."""
        self._drop(kind, namespace, name)

    # Transport

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionFailed("the server is down")
        self.calls.append((method, path))
        parsed = json.loads(body) if body else None
        try:
            for fault in self.reject:
                error = fault(method, path, parsed)
                if error is not None:
                    raise error
            answer = self._answer(method, path, dict(query), parsed)
        except StatusError as error:
            return Response(error.code, {}, json.dumps(error.status()).encode())
        return Response(200, {}, json.dumps(answer).encode())

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AsyncIterator[Stream]:
        if self.down:
            raise ConnectionFailed("the server is down")
        kind, namespace, _, _ = _route(path)
        self.watches += 1
        frames = self._frames(kind, namespace, dict(query))
        try:
            yield Stream(200, {}, frames)
        finally:
            self.watches -= 1
            await frames.aclose()

    async def close(self) -> None:
        self.down = True

    # semantics

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Object:
        kind, namespace, name, subresource = _route(path)
        if method == "GET" and not name:
            items = [obj for obj in self._scope(kind, namespace) if _matches(obj, query)]
            return {"metadata": {"resourceVersion": str(self.revision)}, "items": items}
        if method == "POST" and subresource == "binding":
            return self._bind(namespace, name, body)
        if method == "POST":
            return self._create(kind, namespace, body)
        if method == "DELETE" and not name:
            for obj in self._scope(kind, namespace):
                self._delete(kind, namespace, obj["metadata"]["name"], body or {})
            return {"kind": "Status", "status": "Success"}
        current = self.objects[kind.plural].get((namespace, name))
        if current is None:
            raise errors.not_found(kind.plural, kind.group, name)
        if method == "GET":
            return current
        if method == "DELETE":
            return self._delete(kind, namespace, name, body or {})
        if method == "PATCH":
            body = _merge(clone(current), body)
        return self._update(kind, namespace, name, current, body, subresource)

    def _create(self, kind: Kind, namespace: str, obj: Object) -> Object:
        metadata = obj["metadata"]
        if not metadata.get("name"):
            suffix = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
            metadata["name"] = metadata["generateName"] + suffix
        if (namespace, metadata["name"]) in self.objects[kind.plural]:
            raise errors.already_exists(kind.plural, kind.group, metadata["name"])
        if kind.namespaced:
            metadata["namespace"] = namespace
        metadata.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        if kind.status and kind is not catalog.NODE:
            obj.pop("status", None)
        if kind is catalog.POD:
            obj["status"] = {"phase": "Pending"}
        return self._store(kind, namespace, metadata["name"], obj)

    def _update(
        self, kind: Kind, namespace: str, name: str, current: Object, new: Object, subresource: str
    ) -> Object:
        revision = new["metadata"].get("resourceVersion")
        if revision and revision != current["metadata"]["resourceVersion"]:
            raise errors.conflict(kind.plural, kind.group, name)
        if subresource == "status":
            new = {**current, "status": new.get("status", {})}
        elif kind.status:
            new = {**new, "status": current.get("status", {})}
        new = clone(new)
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion")
        for key in kept:
            if key in current["metadata"]:
                new["metadata"][key] = current["metadata"][key]
        if new == current:
            return current
        if new.get("spec") != current.get("spec") and kind.generation:
            new["metadata"]["generation"] += 1
        gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers")
        graceful = new["metadata"].get("deletionGracePeriodSeconds")
        if kind is catalog.NAMESPACE:
            gone = gone and not dig(new, "spec", "finalizers")
        if gone and not graceful:
            return self._drop(kind, namespace, name)
        return self._store(kind, namespace, name, new)

    def _delete(self, kind: Kind, namespace: str, name: str, options: Object) -> Object:
        current = self.objects[kind.plural][namespace, name]
        wanted = options.get("preconditions", {})
        if wanted.get("uid", current["metadata"]["uid"]) != current["metadata"]["uid"]:
            raise errors.conflict(kind.plural, kind.group, name, "uid differs")
        obj = clone(current)
        metadata = obj["metadata"]
        finalizers = metadata.setdefault("finalizers", [])
        policy = options.get("propagationPolicy")
        for asked, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
            if policy == asked and finalizer not in finalizers:
                finalizers.append(finalizer)
        grace = options.get("gracePeriodSeconds", 30) if kind.graceful and dig(obj, "spec", "nodeName") else 0
        if grace and dig(obj, "status", "phase") in ("Succeeded", "Failed"):
            grace = 0
        if (
            not finalizers
            and not grace
            and not (kind is catalog.NAMESPACE and dig(obj, "spec", "finalizers"))
        ):
            self._drop(kind, namespace, name)
            return {"kind": "Status", "status": "Success", "metadata": {}}
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = now()
            metadata["generation"] = metadata.get("generation", 0) + 1
        metadata["deletionGracePeriodSeconds"] = grace
        if not finalizers:
            del metadata["finalizers"]
        if kind is catalog.NAMESPACE:
            obj["status"] = {"phase": "Terminating"}
        return self._store(kind, namespace, name, obj)

    def _bind(self, namespace: str, name: str, binding: Object) -> Object:
        pod = self.objects["pods"].get((namespace, name))
        if pod is None:
            raise errors.not_found("pods", "", name)
        if dig(pod, "spec", "nodeName"):
            raise errors.conflict("pods", "", name, f"pod {name} is already assigned to node")

        def assign(obj: Object) -> None:
            obj["spec"]["nodeName"] = binding["target"]["name"]

        self.edit(catalog.POD, name, namespace, assign)
        return {"kind": "Status", "status": "Success", "metadata": {}}

    def _store(self, kind: Kind, namespace: str, name: str, obj: Object) -> Object:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        previous = self.objects[kind.plural].get((namespace, name))
        self.objects[kind.plural][namespace, name] = obj
        self._log.append((self.revision, kind.plural, obj, previous))
        self._wake()
        return obj

    def _drop(self, kind: Kind, namespace: str, name: str) -> Object:
        previous = self.objects[kind.plural].pop((namespace, name))
        self.revision += 1
        last = clone(previous)
        last["metadata"]["resourceVersion"] = str(self.revision)
        self._log.append((self.revision, kind.plural, None, last))
        self._wake()
        return last

    def _scope(self, kind: Kind, namespace: str) -> list[Object]:
        found = self.objects[kind.plural].items()
        return [obj for (space, _), obj in found if not namespace or space == namespace]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _frames(self, kind: Kind, namespace: str, query: dict[str, str]) -> AsyncIterator[bytes]:
        generation = self._generation
        if "resourceVersion" in query:
            revision = int(query["resourceVersion"])
            if revision < self.oldest:
                error = errors.Expired(f"too old resource version: {revision} ({self.oldest})")
                yield json.dumps({"type": "ERROR", "object": error.status()}).encode() + b"\n"
                return
        else:
            revision = self.revision
            for obj in self._scope(kind, namespace):
                if _matches(obj, query):
                    yield _frame("ADDED", obj)
        position = len([entry for entry in self._log if entry[0] <= revision])
        while True:
            changed = self._changed
            if generation != self._generation or self.down:
                raise ConnectionFailed("the connection broke")
            while position < len(self._log):
                if kind.plural in self._held:
                    await self._flowing.wait()
                _, plural, new, old = self._log[position]
                position += 1
                if plural == kind.plural:
                    line = _event(new, old, namespace, query)
                    if line:
                        yield line
            await changed.wait()


def _event(new: Object | None, old: Object | None, namespace: str, query: dict[str, str]) -> bytes:
    is_in = new is not None and _in(new, namespace) and _matches(new, query)
    was_in = old is not None and _in(old, namespace) and _matches(old, query)
    if is_in and was_in:
        return _frame("MODIFIED", new)
    if is_in:
        return _frame("ADDED", new)
    if was_in:
        assert old is not None
        last = clone(old)
        last["metadata"]["resourceVersion"] = (new or old)["metadata"]["resourceVersion"]
        return _frame("DELETED", last)
    return b""


def _frame(type_: str, obj: Object | None) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


def _in(obj: Object, namespace: str) -> bool:
    return not namespace or obj["metadata"].get("namespace") == namespace


def _matches(obj: Object, query: dict[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    if "labelSelector" in query and not LabelSelector.parse(query["labelSelector"]).matches(labels):
        return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        field, value = term.split("=")
        if dig(obj, *field.split("."), default="") != value:
            return False
    return True


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _route(path: str) -> tuple[Kind, str, str, str]:
    """Kind, namespace, name and subresource of a path."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        namespace, parts = parts[1], parts[2:]
    kind = next(kind for kind in catalog.KINDS if kind.plural == parts[0])
    name, subresource = [*parts[1:], "", ""][:2]
    return kind, namespace, name, subresource
