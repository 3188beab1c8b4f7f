"""`netkit api requests`: how requests are grouped, filtered and printed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netkit.cli.api_commands import _line, _moment
from netkit.cli.output import Ink
from netkit.cluster.api_requests import ApiCall, Caller, CallGroup, Filter, call_of, callers, grouped, who
from netkit.cluster.errors import ConfigError


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


@pytest.mark.parametrize(
    ("user", "agent", "expected"),
    [
        ("kubernetes-admin", "kubectl/v1.32.4", "kubernetes-admin (kubectl)"),
        ("system:kube-scheduler", "kube-scheduler", "kube-scheduler"),
        ("system:node:node1", "kubelet/0.1.0", "node1 (kubelet)"),
        ("netkit:pod-network", "pod-network/0.1.0", "pod-network"),
        (
            "system:serviceaccount:kube-system:node-controller",
            "kube-controller-manager/node-controller",
            "node-controller (in kube-controller-manager)",
        ),
        ("system:serviceaccount:shop:cart", "python-requests/2", "shop:cart (python-requests)"),
        ("ann", "", "ann"),
    ],
)
def test_who_asks_is_said_short(user: str, agent: str, expected: str) -> None:
    assert who(replace(call(user), agent=agent)) == expected


def test_callers_with_the_busiest_first() -> None:
    latest = [call(at=0), call(code=404, at=1), call(verb="list", at=2), call("bob", at=4)]
    found = callers(latest, [call(verb="watch", code=0)])
    assert found[0] == Caller("ann (kubectl)", 4, 1, 1, 1.0, ("get pods", "list pods", "watch pods"))
    assert [one.who for one in found] == ["ann (kubectl)", "bob (kubectl)"]


def test_since_lets_open_ones_through() -> None:
    wanted = Filter(since=10.0)
    assert wanted.lets_through(call(at=11))
    assert not wanted.lets_through(call(at=9))
    assert wanted.lets_through(call(at=9, code=0))


def test_an_age_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--since: 'soon' is not a duration"):
        _moment("soon")
    assert _moment("") == 0


def test_a_long_watch_that_ended_does_not_shorten_the_time_that_rates_are_about() -> None:
    latest = [call(at=100), call(at=109), call(verb="watch", at=99)]
    assert grouped(latest, [])[0].per_second == 0.2
