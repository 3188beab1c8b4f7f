"""get and list: from the watch cache, at the revision the options ask for, in pages that are one consistent list."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.continuation import LATEST, Continuation, parse_token
from controlplane.apiserver.registry.requests import ListOptions, ListResult, VersionMatch
from controlplane.apiserver.registry.storage import store_faults
from controlplane.apiserver.registry.versions import check_list_match, parse_version, reach
from controlplane.errors import Expired, not_found
from controlplane.resources.kind import Kind
from controlplane.store.events import Stored
from controlplane.store.protocol import Compacted

_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)
_VERSION_EXPIRED = "The resourceVersion for the provided list is too old."


async def get_object(ctx: Context, kind: Kind, namespace: str, name: str, resource_version: str) -> Stored:
    """Raises NotFound, and ServerTimeout for a resourceVersion of the future."""
    wanted = parse_version(resource_version)
    if wanted:
        await reach(ctx.storage, kind, wanted)
    found = ctx.storage.cache(kind).get(namespace, name)
    if found is None and resource_version != "0":
        found = await ctx.storage.newest(kind, namespace, name)
    if found is None:
        raise not_found(kind.plural, kind.group, name)
    return found


async def list_objects(ctx: Context, kind: Kind, namespace: str, opts: ListOptions) -> ListResult:
    """One page. Raises Expired, ServerTimeout, BadRequest and Invalid as the options deserve."""
    check_list_match(opts.resource_version, opts.match, opts.continue_token)
    cache = ctx.storage.cache(kind)
    after = ""
    place = None
    if opts.continue_token:
        place = parse_token(opts.continue_token, namespace if kind.namespaced else "")
        after = place.after
    if place is not None and place.revision > 0:
        revision = place.revision
        await reach(ctx.storage, kind, revision)
    elif opts.match is VersionMatch.EXACT:
        revision = parse_version(opts.resource_version)
        await reach(ctx.storage, kind, revision)
    else:
        if not opts.resource_version or place is not None:
            with store_faults():
                await cache.catch_up()
        else:
            await reach(ctx.storage, kind, parse_version(opts.resource_version))
        revision = cache.revision
    if revision >= cache.floor:
        return _page(cache.scan(namespace, after=after, revision=revision), opts, revision)
    try:
        with store_faults():
            past = await cache.read(namespace, revision)
    except Compacted as fault:
        if place is None:
            raise Expired(_VERSION_EXPIRED) from fault
        rest = Continuation(LATEST, after).token()
        expired = Expired(_CONTINUE_EXPIRED)
        expired.continue_token = rest
        raise expired from fault
    return _page(((key, stored) for key, stored in past if key > after), opts, revision)


def _page(found: Iterable[tuple[str, Stored]], opts: ListOptions, revision: int) -> ListResult:
    """As many as fit; a continue token and, without a predicate, the number of the rest when there is a rest."""
    predicate, limit = opts.predicate, opts.limit
    if not limit:
        return ListResult(
            [stored for _, stored in found if predicate is None or predicate(stored.object)], revision
        )
    items: list[Stored] = []
    last = ""
    rest = iter(found)
    for key, stored in rest:
        if predicate is not None and not predicate(stored.object):
            continue
        if len(items) == limit:
            remaining = None if predicate is not None else 1 + sum(1 for _ in rest)
            return ListResult(items, revision, Continuation(revision, last).token(), remaining)
        items.append(stored)
        last = key
    return ListResult(items, revision)
