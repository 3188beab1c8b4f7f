"""`netkit api requests`: how requests are grouped, filtered and printed."""

from __future__ import annotations

import pytest

from netkit.cli.api_commands import _line
from netkit.cli.output import Ink
from netkit.cluster.api_requests import ApiCall, CallGroup, Filter, call_of, grouped


def call(
    user: str = "ann", verb: str = "get", what: str = "pods", code: int = 200, at: float = 0.0
) -> ApiCall:
    return ApiCall(at, user, "kubectl/v1.32", verb, what, "default", "web", code, 0.002, 0.0, 10)


def test_a_record_of_the_server_becomes_a_call() -> None:
    record = {
        "time": 1.5, "user": "ann", "agent": "kubectl/v1.32.5 (linux/amd64) kubernetes/0", "verb": "update",
        "group": "apps", "resource": "deployments", "subresource": "scale", "namespace": "default", "name": "web",
        "path": "", "code": 200, "seconds": 0.25, "waited": 0.125, "size": 3, "remote": "127.0.0.1",
    }  # fmt: skip
    found = call_of(record)
    assert (found.what, found.agent, found.waited) == ("deployments.apps/scale", "kubectl/v1.32.5", 0.125)
    assert (
        call_of({**record, "resource": "", "group": "", "subresource": "", "path": "/healthz"}).what
        == "/healthz"
    )


def test_groups_are_by_user_and_thing_with_the_most_frequent_first() -> None:
    latest = [call(at=0), call(code=404, at=1), call(verb="list", at=2), call("bob", at=4)]
    groups = grouped(latest, [call(verb="watch", code=0)])
    assert groups[0] == CallGroup("ann", "kubectl/v1.32", "get", "pods", 2, 0, 1, 0.5, 0.002)
    assert [(group.user, group.verb, group.open) for group in groups[1:]] == [
        ("ann", "list", 0), ("ann", "watch", 1), ("bob", "get", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "lets_through"),
    [
        (Filter(), True),
        (Filter(user="an"), True),
        (Filter(user="kubectl"), True),
        (Filter(user="bob"), False),
        (Filter(what="pod"), True),
        (Filter(what="nodes"), False),
        (Filter(verb="ge"), False),
        (Filter(verb="get", namespace="default"), True),
        (Filter(namespace="other"), False),
    ],
)
def test_filters(wanted: Filter, lets_through: bool) -> None:
    assert wanted.lets_through(call()) is lets_through


class _Plain:
    @staticmethod
    def isatty() -> bool:
        return False


def test_a_line_says_who_asked_what_and_how_long_it_took() -> None:
    ink = Ink(_Plain())  # type: ignore[arg-type]
    line = _line(call(code=404), ink)
    assert line.endswith("404    2.0 ms  get pods default/web  ann kubectl/v1.32")
    assert "open" in _line(call(verb="watch", code=0), ink)
