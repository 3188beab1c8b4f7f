"""A local copy of all objects of one kind, kept fresh by list and watch, with change handlers and indexes.

Controllers, scheduler and node agents read the API through it. Objects handed out are shared: treat them as
read-only and `clone` before changing. The informer never writes to the API.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client, EventType, WatchEvent
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Gone, Object, StatusError
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

ChangeHandler = Callable[[Object | None, Object | None], None]
"""Called with (old, new): (None, x) for a new object, (x, y) for a change, (x, None) for a deletion."""

IndexFunction = Callable[[Object], Iterable[str]]
"""The index values of an object, e.g. the node a pod is bound to. Must be a pure function of the object."""

_SHORT_WATCH_SECONDS = 1.0


class Informer:
    """Cache of one kind, of one namespace (or all), narrowed by selectors.

    No change is lost: after a broken connection the watch goes on from the last revision seen, and when that
    is too old everything is listed again and compared. Handlers run inside the loop, in the order of
    revisions, after the cache holds the change; they must not block.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.kind = kind
        self._client = client
        self._scope = (namespace, label_selector, field_selector)
        self._objects: dict[str, dict[str, Object]] = {}
        self._indexes: dict[str, _Index] = {}
        self._handlers: list[ChangeHandler] = []
        self._synced = asyncio.Event()
        self._revision = ""
        self._highest = 0
        self._epoch = 0

    # reading

    @property
    def revision(self) -> int:
        """The newest revision the cache is known to be complete up to; 0 before the first list."""
        return int(self._revision or 0)

    @property
    def epoch(self) -> int:
        """Counts how often the server came back with an older revision than seen before, i.e. an emptied
        store.
        """
        return self._epoch

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    def get(self, namespace: str, name: str) -> Object | None:
        """The object as last seen; `namespace` is empty for cluster-scoped kinds."""
        return self._objects.get(namespace, {}).get(name)

    def items(self, namespace: str = "") -> list[Object]:
        """All objects, or those of one namespace."""
        if namespace:
            return list(self._objects.get(namespace, {}).values())
        return [obj for objects in self._objects.values() for obj in objects.values()]

    def index_by(self, name: str, function: IndexFunction) -> None:
        """Keep an index. The same name may be registered again with the same meaning; it is kept once."""
        if name in self._indexes:
            return
        index = self._indexes[name] = _Index(function)
        for obj in self.items():
            index.replace(None, obj)

    def lookup(self, index: str, value: str) -> list[Object]:
        """The objects with that index value."""
        return self._indexes[index].get(value)

    def on_change(self, handler: ChangeHandler) -> None:
        """Call `handler` for every object there is, now, and for every change from now on."""
        self._handlers.append(handler)
        for obj in self.items():
            _call(handler, None, obj)

    async def synced(self) -> None:
        """Return once everything of the first list is in the cache and was handed to the handlers."""
        await self._synced.wait()

    # following the server

    async def run(self) -> None:
        """Follow the server until cancelled."""
        backoff = Backoff(0.05, 5.0)
        while True:
            started = time.monotonic()
            try:
                if not self._revision:
                    await self._list()
                await self._follow(backoff)
                if time.monotonic() - started > _SHORT_WATCH_SECONDS:
                    continue
            except Gone as error:
                log.info("%s: %s; listing again", self.kind.plural, error)
                self._revision = ""
            except (ConnectionFailed, StatusError) as error:
                if isinstance(error, StatusError) and error.code == 504:
                    self._revision = ""
                log.info("%s: watch interrupted: %s", self.kind.plural, error)
            except Exception:
                # Whatever it was, the cache must not go stale: begin anew.
                log.exception("%s: watch failed; listing again", self.kind.plural)
                self._revision = ""
            await asyncio.sleep(backoff.next())

    async def _list(self) -> None:
        """Bring the cache to the state of a fresh list, telling handlers the differences."""
        before = self._highest
        namespace, labels, fields = self._scope
        found = await self._client.list(self.kind, namespace, labels, fields)
        if int(found.revision) < before:
            self._epoch += 1
        self._highest = int(found.revision)
        present = {(_namespace(obj), obj["metadata"]["name"]) for obj in found.items}
        self._revision = found.revision
        for namespace, objects in list(self._objects.items()):
            for name, obj in list(objects.items()):
                if (namespace, name) not in present:
                    self._apply(namespace, name, None, obj)
        for obj in found.items:
            namespace, name = _namespace(obj), obj["metadata"]["name"]
            self._put(namespace, name, obj)
        self._synced.set()

    async def _follow(self, backoff: Backoff) -> None:
        namespace, labels, fields = self._scope
        watch = self._client.watch(self.kind, namespace, self._revision, labels, fields)
        async with aclosing(watch) as events:
            async for event in events:
                backoff.reset()
                self._handle(event)

    def _handle(self, event: WatchEvent) -> None:
        obj = event.object
        self._revision = obj["metadata"]["resourceVersion"]
        self._highest = int(self._revision)
        if event.type is EventType.BOOKMARK:
            return
        namespace, name = _namespace(obj), obj["metadata"]["name"]
        if event.type is EventType.DELETED:
            self._apply(namespace, name, None, obj)
        else:
            self._put(namespace, name, obj)

    def _put(self, namespace: str, name: str, obj: Object) -> None:
        """Store a new state; an unchanged one (after a re-list) is no news, a new uid is a death and a birth.

        Field owners are left out: they are a good part of an object, no reader here asks for them, and the server takes
        an update without them as one that leaves them alone.
        """
        obj["metadata"].pop("managedFields", None)
        old = self.get(namespace, name)
        if old is not None:
            then, now = old["metadata"], obj["metadata"]
            if then.get("uid") != now.get("uid"):
                self._apply(namespace, name, None, old)
            elif then.get("resourceVersion") == now.get("resourceVersion"):
                return
        self._apply(namespace, name, obj, obj)

    def _apply(self, namespace: str, name: str, new: Object | None, last: Object) -> None:
        """Change cache and indexes, then tell the handlers. `last` is what they get for a deleted object."""
        objects = self._objects.setdefault(namespace, {})
        old = objects.get(name)
        if new is None:
            if old is None:
                return
            del objects[name]
            if not objects:
                del self._objects[namespace]
        else:
            objects[name] = new
        for index in self._indexes.values():
            index.replace(old, new)
        for handler in self._handlers:
            _call(handler, last if new is None else old, new)


class _Index:
    """From an index value to the objects that have it."""

    def __init__(self, function: IndexFunction) -> None:
        self._function = function
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}

    def get(self, value: str) -> list[Object]:
        return list(self._objects.get(value, {}).values())

    def replace(self, old: Object | None, new: Object | None) -> None:
        if old is not None:
            for value in self._function(old):
                bucket = self._objects.get(value, {})
                bucket.pop(_key(old), None)
                if not bucket:
                    self._objects.pop(value, None)
        if new is not None:
            for value in self._function(new):
                self._objects.setdefault(value, {})[_key(new)] = new


def _namespace(obj: Object) -> str:
    namespace: str = obj["metadata"].get("namespace", "")
    return namespace


def _key(obj: Object) -> tuple[str, str]:
    return (_namespace(obj), obj["metadata"]["name"])


def _call(handler: ChangeHandler, old: Object | None, new: Object | None) -> None:
    """Run a handler; its faults are logged, as the cache and the other handlers must go on."""
    try:
        handler(old, new)
    except Exception:
        metadata = (new or old or {}).get("metadata", {})
        log.exception("%s/%s: change handler failed", metadata.get("namespace", ""), metadata.get("name", ""))


class Informers:
    """One shared informer per resource, made on first use."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[tuple[str, str], Informer] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def of(self, kind: Kind) -> Informer:
        """The informer of `kind` over all namespaces. Asked for during `run` it begins at once."""
        key = (kind.group, kind.plural)
        if key not in self._informers:
            self._informers[key] = Informer(self._client, kind)
            if self._group is not None:
                self._start(key, self._group)
        return self._informers[key]

    def drop(self, kind: Kind) -> None:
        """Stop following a kind that is served no more; its handlers are not told anything."""
        key = (kind.group, kind.plural)
        self._informers.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def __iter__(self) -> Iterator[Informer]:
        return iter(tuple(self._informers.values()))

    async def run(self) -> None:
        """Run all informers, those made later too, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for key in list(self._informers):
                    self._start(key, group)
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def _start(self, key: tuple[str, str], group: asyncio.TaskGroup) -> None:
        informer = self._informers[key]
        self._tasks[key] = group.create_task(informer.run(), name=f"informer {informer.kind.plural}")

    async def synced(self) -> None:
        """Return once every informer made so far is."""
        for informer in self:
            await informer.synced()
