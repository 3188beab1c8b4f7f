"""The OpenAPI operations of one kind: its collection, its objects, their subresources.

Called by `openapi.py` alone. Clients read little of it: kubectl looks for a `patch` operation with the kind's
`x-kubernetes-group-version-kind`, its parameters and its media types; generators of clients read the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.errors import Object
from controlplane.resources.kind import Kind
from controlplane.schema import definitions

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_JSON = "application/json"
_ANSWERS = (_JSON, "application/yaml")
_STREAMS = (*_ANSWERS, "application/json;stream=watch")
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
"""The last is for built-in types alone: a kubectl that finds it here sends it."""

_NAMESPACE = ("namespace", "object name and auth scope, such as for teams and projects")
_PRETTY = ("pretty", "string", "If 'true', then the output is pretty printed.")
_DRY_RUN = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: "
    "- All: all dry run stages will be processed",
)
_MANAGER = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes.",
)
_VALIDATION = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request containing unknown or "
    "duplicate fields. Valid values are: Ignore, Warn (the default) and Strict.",
)
_FORCE = (
    "force",
    "boolean",
    'Force is going to "force" Apply requests. It must be unset for non-apply patch requests.',
)
_LISTING = (
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type BOOKMARK."),
    ("continue", "string", "The continue option is set when retrieving more results from the server."),
    ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields."),
    ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels."),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    ("resourceVersion", "string", "resourceVersion sets a constraint on what versions may be served."),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied."),
    ("sendInitialEvents", "boolean", "Begin the watch with synthetic events for all existing objects."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    ("watch", "boolean", "Watch for changes to the described resources."),
)
_DELETING = (
    _DRY_RUN,
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
    ("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."),
    ("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
)
_WRITING = (_DRY_RUN, _MANAGER, _VALIDATION)
_SUBRESOURCE_METHODS = {"get": "get", "update": "put", "patch": "patch", "create": "post", "delete": "delete"}
_OK = {"200": "OK"}
_CODES = {
    "post": {**_OK, "201": "Created", "202": "Accepted"},
    "put": {**_OK, "201": "Created"},
    "patch": {**_OK, "201": "Created"},
}
_LABELS = {
    "get": "read",
    "list": "list",
    "post": "create",
    "put": "replace",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "delete",
}


def paths(kind: Kind) -> Iterator[tuple[str, Object]]:
    """Every path of the kind with its operations."""
    collection, item = kind.path("{namespace}"), kind.path("{namespace}", "{name}")
    yield collection, _collection(kind)
    if kind.namespaced and "list" in kind.verbs:
        listing = _operation(kind, "list", _LISTING, scope="ForAllNamespaces")
        yield kind.path(), {"get": listing, "parameters": [_query(*_PRETTY)]}
    if len(operations := _item(kind)) > 1:
        yield item, operations
    for name, verbs, body in _subresources(kind):
        operations = {}
        for verb in verbs:
            if method := _SUBRESOURCE_METHODS.get(verb):
                options = _WRITING if method in ("post", "put", "patch") else ()
                operations[method] = _operation(kind, method, options, subresource=name, body=body)
        operations["parameters"] = _shared(kind, named=True)
        yield f"{item}/{name}", operations


def _collection(kind: Kind) -> Object:
    operations: Object = {}
    if "list" in kind.verbs:
        operations["get"] = _operation(kind, "list", _LISTING)
    if "create" in kind.verbs:
        operations["post"] = _operation(kind, "post", _WRITING)
    if "deletecollection" in kind.verbs:
        listing = [option for option in _LISTING if option[0] not in ("allowWatchBookmarks", "watch")]
        operations["delete"] = _operation(kind, "deletecollection", (*_DELETING, *listing))
    operations["parameters"] = _shared(kind)
    return operations


def _item(kind: Kind) -> Object:
    operations: Object = {}
    if "get" in kind.verbs:
        operations["get"] = _operation(kind, "get", ())
    if "update" in kind.verbs:
        operations["put"] = _operation(kind, "put", _WRITING)
    if "patch" in kind.verbs:
        operations["patch"] = _operation(kind, "patch", (*_WRITING, _FORCE))
    if "delete" in kind.verbs:
        operations["delete"] = _operation(kind, "delete", _DELETING)
    operations["parameters"] = _shared(kind, named=True)
    return operations


def _subresources(kind: Kind) -> Iterator[tuple[str, Sequence[str], tuple[str, str, str]]]:
    """Name, verbs and (group, version, kind) of the body of each subresource."""
    own = (kind.group, kind.version, kind.kind)
    if kind.status:
        yield "status", ("get", "patch", "update"), own
    if kind.scale:
        yield "scale", ("get", "patch", "update"), ("autoscaling", "v1", "Scale")
    for found in kind.subresources:
        yield (
            found.name,
            found.verbs,
            (found.group or kind.group, found.version or kind.version, found.kind),
        )


def _operation(
    kind: Kind,
    action: str,
    options: Sequence[tuple[str, str, str]],
    *,
    scope: str = "",
    subresource: str = "",
    body: tuple[str, str, str] | None = None,
) -> Object:
    """One operation. `body` is what a subresource's requests and answers hold, the kind itself otherwise."""
    group, version, name = body or (kind.group, kind.version, kind.kind)
    schema = _schema(kind, group, version, name)
    spoken = f"{subresource} of the specified {kind.kind}" if subresource else kind.kind
    operation: Object = {
        "tags": [f"{_camel(kind.group or 'core')}_{kind.version}"],
        "description": f"{_LABELS[action]} {spoken}",
        "operationId": _operation_id(kind, action, scope, subresource),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": name},
    }
    if options:
        operation["parameters"] = [_query(*option) for option in options]
    if action == "patch":
        operation["requestBody"] = _content(_reference(f"{META}.Patch"), _patches(kind), required=True)
    elif action in ("post", "put"):
        operation["requestBody"] = _content(schema, ("*/*",), required=True)
    elif action in ("delete", "deletecollection"):
        operation["requestBody"] = _content(_reference(f"{META}.DeleteOptions"), ("*/*",))
    if action == "list":
        answer = _content(_schema(kind, group, version, kind.list_kind or f"{name}List"), _STREAMS)
    else:
        status = _reference(f"{META}.Status")
        answer = _content(status if action.startswith("delete") else schema, _ANSWERS)
    operation["responses"] = {
        code: {"description": description, **answer} for code, description in _CODES.get(action, _OK).items()
    }
    operation["responses"]["401"] = {"description": "Unauthorized"}
    return operation


def _operation_id(kind: Kind, action: str, scope: str, subresource: str) -> str:
    """As upstream: `patchCoreV1NamespacedPodStatus`. Clients' generators name their methods after it."""
    group = "".join(map(_capital, (kind.group or "core").removesuffix(".k8s.io").split(".")))
    place = "Collection" if action == "deletecollection" else ""
    place += "Namespaced" if kind.namespaced and not scope else ""
    return f"{_LABELS[action]}{group}{_capital(kind.version)}{place}{kind.kind}{_capital(subresource)}{scope}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _camel(group: str) -> str:
    first, *rest = group.removesuffix(".k8s.io").split(".")
    return first + "".join(map(_capital, rest))


def _shared(kind: Kind, *, named: bool = False) -> list[Object]:
    """Parameters of all operations of a path: the variables in it, and `pretty`."""
    found = []
    if named:
        found.append(_variable("name", f"name of the {kind.kind}"))
    if kind.namespaced:
        found.append(_variable(*_NAMESPACE))
    return [*found, _query(*_PRETTY)]


def _variable(name: str, description: str) -> Object:
    schema = {"type": "string", "uniqueItems": True}
    return {"name": name, "in": "path", "description": description, "required": True, "schema": schema}


def _query(name: str, kind: str, description: str) -> Object:
    schema = {"type": kind, "uniqueItems": True}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _content(schema: Object, media_types: Sequence[str], *, required: bool = False) -> Object:
    content: Object = {"content": {media_type: {"schema": schema} for media_type in media_types}}
    return {**content, "required": True} if required else content


def custom_name(group: str, version: str, kind: str) -> str:
    """How the schema of a custom kind is called: `com.example.stable.v1.CronTab`."""
    return ".".join([*reversed(group.split(".")), version, kind])


def _patches(kind: Kind) -> Sequence[str]:
    return [each for each in _PATCHES if kind.strategic_merge or "strategic" not in each]


def _schema(kind: Kind, group: str, version: str, name_of_kind: str) -> Object:
    """A reference to a schema; plain text for what has none (the bodies of connections)."""
    own = custom_name(group, version, name_of_kind)
    if own in kind.definitions:
        return _reference(own)
    name = definitions.name_for(f"{group}/{version}" if group else version, name_of_kind)
    return _reference(name) if name else {"type": "string"}


def _reference(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}
