"""Brings the default roles and bindings into the registry, at every start. Called by `server.py` and by tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.apiserver.authz.default_policy import default_objects
from controlplane.apiserver.authz.reconciliation import must_be_replaced, reconciled
from controlplane.apiserver.registry import LOOPBACK_USER, DeleteOptions, Registry, Seed, WriteOptions
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta.objects import name, namespace
from controlplane.resources.catalog import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING
from controlplane.resources.kind import Kind
from controlplane.resources.rbac import aggregated_rules
from controlplane.store.cache import WatchCache

_KINDS = {kind.kind: kind for kind in (CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING)}
_OPTIONS = WriteOptions(field_manager="kube-apiserver", user=LOOPBACK_USER)


async def bootstrap_policy(registry: Registry, additional: Iterable[Object] = ()) -> None:
    """Create what is missing, in one commit; give back what was taken from the rest. `additional` roles and bindings
    belong to the cluster's own parts and are treated alike."""
    wanted = [(_KINDS[obj["kind"]], obj) for obj in (*default_objects(), *additional)]
    caches = {kind.kind: await registry.cache(kind) for kind in _KINDS.values()}
    missing = [
        (kind, obj) for kind, obj in wanted if caches[kind.kind].get(namespace(obj), name(obj)) is None
    ]
    new = {id(obj) for _, obj in missing}
    _fill_aggregated(caches[CLUSTER_ROLE.kind], missing)
    await registry.plant(Seed(kind, obj, namespace(obj)) for kind, obj in missing)
    for kind, obj in wanted:
        if id(obj) not in new:
            await _reconcile(registry, kind, obj)


def _fill_aggregated(present: WatchCache, missing: Sequence[tuple[Kind, Object]]) -> None:
    """The rules aggregating roles will get anyway: so they count at once, and nobody has to write them again."""
    roles = [stored.object for _, stored in present.scan()]
    roles += [obj for kind, obj in missing if kind is CLUSTER_ROLE]
    pending = [obj for kind, obj in missing if obj.get("aggregationRule")]
    for _ in pending:
        for role in pending:
            role["rules"] = aggregated_rules(role, roles)


async def _reconcile(registry: Registry, kind: Kind, wanted: Object) -> None:
    space, key = namespace(wanted), name(wanted)
    while True:
        present = (await registry.cache(kind)).get(space, key)
        if present is None:
            await registry.plant([Seed(kind, wanted, space)])
            return
        try:
            if "roleRef" in wanted and must_be_replaced(present.object, wanted):
                await registry.delete(kind, space, key, DeleteOptions(user=LOOPBACK_USER))
                continue
            changed = reconciled(present.object, wanted)
            if changed is not None:
                await registry.update(kind, space, key, changed, _OPTIONS)
            return
        except (Conflict, NotFound):
            continue
