"""Sizes of ReplicaSets as pure functions; the rows of proportional scaling are upstream's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.client_objects import deployment

from controlplane.controllers.deployment import plan
from controlplane.controllers.deployment.sizes import max_surge, max_unavailable, wanted
from controlplane.controllers.deployment.templates import same_template, template_hash
from controlplane.errors import Object
from controlplane.meta.objects import name


def rolling(replicas: int, surge: int | str = 0, unavailable: int | str = 1) -> Object:
    return deployment(
        replicas=replicas,
        strategy={
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
        },
    )


def one(name_: str, size: int, age: int, limit: int = 0, ready: int | None = None) -> Object:
    annotations = {"deployment.kubernetes.io/max-replicas": str(limit)} if limit else {}
    return {
        "metadata": {
            "name": name_,
            "uid": name_,
            "creationTimestamp": f"2026-01-01T00:0{9 - age}:00Z",
            "annotations": annotations,
        },
        "spec": {"replicas": size},
        "status": {"availableReplicas": size if ready is None else ready},
    }


@pytest.mark.parametrize(
    ("before", "after", "new", "old", "new_size", "old_sizes"),
    [
        (10, 12, 10, [0, 0], 12, [0, 0]),
        (10, 5, 10, [0, 0], 5, [0, 0]),
        (5, 10, 2, [3], 4, [6]),
        (5, 3, 2, [3], 1, [2]),
        (9, 4, 8, [1], 4, [0]),
        (7, 10, 2, [4, 1], 3, [6, 1]),
        (13, 8, 2, [8, 3], 1, [5, 2]),
        (3, 4, 1, [1, 1], 2, [1, 1]),
        (3, 2, 1, [1, 1], 1, [1, 0]),
        (5, 0, 3, [2], 0, [0]),
        (0, 6, 0, [0, 0], 6, [0, 0]),
    ],
)
def test_proportional_scaling(
    before: int, after: int, new: int, old: list[int], new_size: int, old_sizes: list[int]
) -> None:
    sets = [
        one("new", new, 0, before),
        *(one(f"old{at}", size, at + 1, before) for at, size in enumerate(old)),
    ]
    sizes = {name(each): wanted(each) for each in sets}
    sizes.update((name(each), size) for each, size in plan.scale(rolling(after), sets[0], sets[1:]))
    assert sizes["new"] == new_size
    assert [sizes[f"old{at}"] for at in range(len(old))] == old_sizes


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (3, 0, "10%", (0, 1)),
        (4, 0, 9, (0, 4)),
        (0, "50%", "50%", (0, 0)),
    ],
)
def test_fenceposts(
    replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]
) -> None:
    subject = rolling(replicas, surge, unavailable)
    assert (max_surge(subject), max_unavailable(subject)) == expected


def test_the_new_set_stays_when_there_are_too_many_pods() -> None:
    subject = rolling(3, 1, 0)
    new, old = one("new", 2, 0), one("old", 7, 1)
    assert plan.new_set_size(subject, [new, old], 2) == 2
    assert plan.grow_new(subject, new, [new, old]) == []


@given(
    replicas=st.integers(0, 12),
    surge=st.integers(0, 4),
    unavailable=st.integers(0, 4),
    new=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    old=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=3),
)
def test_a_step_never_crosses_the_fenceposts(
    replicas: int,
    surge: int,
    unavailable: int,
    new: tuple[int, int],
    old: list[tuple[int, int]],
) -> None:
    subject = rolling(replicas, surge, unavailable)
    first = one("new", new[0], 0, ready=min(new))
    others = [one(f"old{at}", size, at + 1, ready=min(size, ready)) for at, (size, ready) in enumerate(old)]
    before = wanted(first) + sum(map(wanted, others))
    grown = plan.grow_new(subject, first, [first, *others])
    if grown:
        size = grown[0][1]
        assert size <= max(replicas, new[0])
        limit = replicas + max_surge(subject)
        assert before - wanted(first) + size <= max(limit, before)
        return
    available = {name(each): each["status"]["availableReplicas"] for each in [first, *others]}
    shrunk = {name(each): size for each, size in plan.shrink_old(subject, first, others)}
    left = sum(min(available[key], shrunk.get(key, 99)) for key in available)
    least = replicas - max_unavailable(subject)
    assert left >= min(least, sum(available.values()))
    assert all(size >= 0 for size in shrunk.values())


def test_hash_is_stable_and_blind_for_what_does_not_count() -> None:
    template = {
        "metadata": {"labels": {"app": "web"}, "creationTimestamp": None},
        "spec": {"containers": [{"name": "c", "resources": {}}]},
    }
    slim = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}
    hashed = {**slim, "metadata": {"labels": {"app": "web", "pod-template-hash": "x"}}}
    assert same_template(template, slim)
    assert same_template(hashed, slim)
    assert template_hash(template) == template_hash(hashed) == template_hash(slim)
    assert template_hash(slim, 1) != template_hash(slim)
    assert not same_template(slim, {**slim, "spec": {"containers": [{"name": "d"}]}})
