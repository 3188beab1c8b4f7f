"""Queries and DeleteOptions bodies -> the registry's option values. Pure.

Called by the handlers; knows no HTTP.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from controlplane.apiserver.registry.requests import (
    DeleteOptions,
    ListOptions,
    Predicate,
    Propagation,
    Remarks,
    VersionMatch,
    WatchOptions,
    WriteOptions,
)
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, Cause, Invalid, Object, invalid
from controlplane.meta.fields import FieldSelector
from controlplane.meta.labels import LabelSelector
from controlplane.resources.kind import Kind

_FALSE = frozenset({"0", "false"})
_FIELD_MANAGER_MAX = 128
_WATCH_TIMEOUT = (1800.0, 3600.0)
"""Seconds a watch lives when its client names no timeout; random so that clients do not all come back at once."""

_INTEGER = re.compile(r"[+-]?[0-9]+").fullmatch
_INTEGER_LENGTH = 1000
_INT64 = range(-(2**63), 2**63)

E = TypeVar("E", bound=StrEnum)


class FieldValidation(StrEnum):
    """What is done about unknown and duplicate fields of a body."""

    IGNORE = "Ignore"
    WARN = "Warn"
    STRICT = "Strict"


class Query:
    """A query's decoded pairs, read by name. Names that nobody reads are ignored, as upstream does."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """The first value, or "" when absent."""
        found = self._values.get(name)
        return found[0] if found else ""

    def all(self, name: str) -> Sequence[str]:
        return self._values.get(name, ())

    def flag(self, name: str) -> bool:
        """A boolean as upstream reads one: absent, `false` and `0` are False, all else (also `True`, "") is True."""
        found = self._values.get(name)
        return found is not None and found[0].lower() not in _FALSE

    def integer(self, name: str) -> int | None:
        """A whole number, None when absent or empty. Raises BadRequest for anything that is none."""
        text = self.text(name)
        if not text:
            return None
        if not _INTEGER(text):
            raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})')
        number = int(text) if len(text) <= _INTEGER_LENGTH else _INT64.stop
        if number not in _INT64:
            raise BadRequest(f'strconv.ParseInt: parsing "{text}": value out of range ({name})')
        return number


def write_options(
    query: Query,
    user: UserInfo,
    user_agent: str = "",
    remarks: Remarks | None = None,
    kind: str = "CreateOptions",
) -> WriteOptions:
    """Options of create, update and patch. The manager's name defaults to the User-Agent up to its slash."""
    manager = query.text("fieldManager")
    causes = _manager_causes(manager)
    if causes:
        raise invalid(kind, "meta.k8s.io", "", causes)
    return WriteOptions(
        dry_run=_dry_run(query.all("dryRun"), kind),
        field_manager=manager or _manager_of(user_agent),
        user=user,
        remarks=remarks or Remarks(),
    )


def _manager_causes(manager: str) -> list[Cause]:
    causes = []
    if len(manager.encode()) > _FIELD_MANAGER_MAX:
        text = f"Too long: may not be more than {_FIELD_MANAGER_MAX} bytes"
        causes.append(Cause("FieldValueTooLong", text, "fieldManager"))
    at = 0
    for character in manager:
        if not _printable(character):
            shown = f"U+{ord(character):04X}"
            text = f"Invalid value: {_quoted(manager)}: invalid character {shown} (at position {at})"
            causes.append(Cause("FieldValueInvalid", text, "fieldManager"))
        at += len(character.encode())
    return causes


def _printable(character: str) -> bool:
    """As Go's unicode.IsPrint: of spaces only the ASCII one."""
    return character.isprintable()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _manager_of(user_agent: str) -> str:
    """The User-Agent up to its slash, without what cannot be printed and cut to what fits."""
    found, size = [], 0
    for character in user_agent.partition("/")[0]:
        if _printable(character):
            size += len(character.encode())
            if size > _FIELD_MANAGER_MAX:
                break
            found.append(character)
    return "".join(found)


def check_patch_options(query: Query, *, applies: bool) -> None:
    """What a PATCH must and must not say, depending on whether it is a server-side apply. Raises Invalid."""
    if applies and not query.text("fieldManager"):
        cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
    if not applies and "force" in query:
        cause = Cause("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force")
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])


def field_validation(query: Query, kind: str = "CreateOptions") -> FieldValidation:
    """`fieldValidation`, by default Warn. Raises Invalid for other words."""
    text = query.text("fieldValidation")
    if text and text not in list(FieldValidation):
        words = ", ".join(f'"{word}"' for word in ("", *sorted(FieldValidation)))
        message = f"Unsupported value: {_quoted(text)}: supported values: {words}"
        raise invalid(kind, "meta.k8s.io", "", [Cause("FieldValueNotSupported", message, "fieldValidation")])
    return FieldValidation(text) if text else FieldValidation.WARN


def list_options(query: Query, kind: Kind) -> ListOptions:
    match = _choice(VersionMatch, "resourceVersionMatch", query.text("resourceVersionMatch"))
    limit = query.integer("limit") or 0
    if query.flag("sendInitialEvents"):
        raise _options_error(
            "FieldValueForbidden",
            "sendInitialEvents",
            "Forbidden: sendInitialEvents is forbidden for list",
        )
    return ListOptions(
        predicate=_predicate(query, kind)[0],
        limit=max(limit, 0),
        continue_token=query.text("continue"),
        resource_version=query.text("resourceVersion"),
        match=match,
    )


def watch_options(query: Query, kind: Kind, name: str = "") -> WatchOptions:
    """Options of a watch; `name` is the object's when the path names one (then the watch is of that object)."""
    predicate, selected = _predicate(query, kind)
    seconds = query.integer("timeoutSeconds")
    return WatchOptions(
        predicate=predicate,
        name=name or selected,
        resource_version=query.text("resourceVersion"),
        match=_choice(VersionMatch, "resourceVersionMatch", query.text("resourceVersionMatch")),
        bookmarks=query.flag("allowWatchBookmarks"),
        send_initial_events=query.flag("sendInitialEvents"),
        timeout_seconds=float(seconds) if seconds and seconds > 0 else random.uniform(*_WATCH_TIMEOUT),
    )


def delete_options(
    query: Query, body: object, user: UserInfo, remarks: Remarks | None = None
) -> DeleteOptions:
    """From the body when there is one, else from the query, as upstream. `body` is the decoded one or None."""
    if body is None:
        propagation = query.text("propagationPolicy")
        if query.flag("orphanDependents"):
            propagation = propagation or Propagation.ORPHAN
        return DeleteOptions(
            dry_run=_dry_run(query.all("dryRun")),
            user=user,
            grace_seconds=query.integer("gracePeriodSeconds"),
            propagation=_choice(Propagation, "propagationPolicy", propagation),
            remarks=remarks or Remarks(),
        )
    if not isinstance(body, dict):
        raise BadRequest("the body of a delete must be a DeleteOptions object")
    return _delete_options_from(body, query, user, remarks or Remarks())


def _delete_options_from(body: Object, query: Query, user: UserInfo, remarks: Remarks) -> DeleteOptions:
    if body.get("kind") not in (None, "", "DeleteOptions"):
        raise BadRequest(f"{body['kind']} cannot be handled as DeleteOptions")
    dry_run = body.get("dryRun") or ()
    grace = body.get("gracePeriodSeconds")
    conditions = body.get("preconditions") or {}
    propagation = body.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if not (
        isinstance(dry_run, list | tuple)
        and isinstance(conditions, Mapping)
        and isinstance(propagation, str)
        and (grace is None or (isinstance(grace, int) and not isinstance(grace, bool)))
    ):
        raise BadRequest("DeleteOptions: a field has the wrong type")
    if orphan is not None:
        if propagation:
            raise _options_error(
                "FieldValueInvalid",
                "propagationPolicy",
                f'Invalid value: "{propagation}": orphanDependents and deletionPropagation cannot be both set',
                "DeleteOptions",
            )
        propagation = Propagation.ORPHAN if orphan else Propagation.BACKGROUND
    return DeleteOptions(
        dry_run=_dry_run([*map(str, dry_run), *query.all("dryRun")]),
        user=user,
        grace_seconds=grace,
        propagation=_choice(Propagation, "propagationPolicy", propagation, "DeleteOptions"),
        uid=str(conditions.get("uid") or ""),
        resource_version=str(conditions.get("resourceVersion") or ""),
        remarks=remarks,
    )


def _dry_run(values: Sequence[str], kind: str = "DeleteOptions") -> bool:
    if any(value != "All" for value in values):
        shown = f"[]string{{{', '.join(map(_quoted, values))}}}"
        message = f'Unsupported value: {shown}: supported values: "All"'
        raise _options_error("FieldValueNotSupported", "dryRun", message, kind)
    return bool(values)


def _choice(choices: type[E], name: str, value: str, kind: str = "") -> E | None:
    if not value:
        return None
    try:
        return choices(value)
    except ValueError as error:
        words = ", ".join(f'"{choice}"' for choice in choices)
        raise _options_error(
            "FieldValueNotSupported", name, f'Unsupported value: "{value}": supported values: {words}', kind
        ) from error


def _options_error(reason: str, field: str, message: str, kind: str = "") -> Invalid:
    return invalid(kind or "Options", "meta.k8s.io", "", [Cause(reason, message, field)])


def _predicate(query: Query, kind: Kind) -> tuple[Predicate | None, str]:
    """Label and field selectors joined, and the name when `metadata.name=X` selects one object."""
    labels, fields = query.text("labelSelector"), query.text("fieldSelector")
    predicates: list[Predicate] = []
    name = ""
    if labels:
        predicates.append(_label_predicate(labels))
    if fields:
        predicate, name = _field_predicate(fields, kind)
        predicates.append(predicate)
    if not predicates:
        return None, ""
    if len(predicates) == 1:
        return predicates[0], name
    first, second = predicates
    return (lambda obj: first(obj) and second(obj)), name


def _label_predicate(text: str) -> Predicate:
    try:
        selector = LabelSelector.parse(text)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return lambda obj: selector.matches(obj["metadata"].get("labels") or {})


def _field_predicate(text: str, kind: Kind) -> tuple[Predicate, str]:
    try:
        selector = FieldSelector.parse(text)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    checks: list[tuple[Callable[[Object], str], bool, str]] = []
    name = ""
    for field, operator, value in selector.requirements:
        getter = _GENERIC_FIELDS.get(field) or kind.fields.get(field)
        if getter is None or (field == "metadata.namespace" and not kind.namespaced):
            raise BadRequest(f"field label not supported: {field}")
        if field == "metadata.name" and operator == "=":
            name = value
        checks.append((getter, operator == "=", value))
    return (lambda obj: all((get(obj) == value) is equal for get, equal, value in checks)), name


_GENERIC_FIELDS: Mapping[str, Callable[[Object], str]] = {
    "metadata.name": lambda obj: str(obj["metadata"].get("name", "")),
    "metadata.namespace": lambda obj: str(obj["metadata"].get("namespace", "")),
}
