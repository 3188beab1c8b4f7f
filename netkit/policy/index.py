"""Label selectors by a label they insist on, so that a pod's labels lead to those that may match it. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from controlplane.meta.labels import LabelSelector

_T = TypeVar("_T", bound=Hashable)
_Label = tuple[str, str]


class SelectorIndex(Generic[_T]):
    """Things with a selector each. A lookup costs what may match, not what there is."""

    def __init__(self) -> None:
        self._by_label: dict[_Label, dict[_T, LabelSelector]] = {}
        self._others: dict[_T, LabelSelector] = {}

    def add(self, thing: _T, selector: LabelSelector) -> None:
        label = required_label(selector)
        bucket = self._others if label is None else self._by_label.setdefault(label, {})
        bucket[thing] = selector

    def remove(self, thing: _T, selector: LabelSelector) -> None:
        """Take out what was added with that selector."""
        label = required_label(selector)
        if label is None:
            del self._others[thing]
            return
        bucket = self._by_label[label]
        del bucket[thing]
        if not bucket:
            del self._by_label[label]

    def matching(self, labels: Mapping[str, str]) -> Iterator[_T]:
        """The things whose selector matches these labels."""
        for label in labels.items():
            for thing, selector in self._by_label.get(label, {}).items():
                if selector.matches(labels):
                    yield thing
        for thing, selector in self._others.items():
            if selector.matches(labels):
                yield thing

    def __iter__(self) -> Iterator[_T]:
        for bucket in self._by_label.values():
            yield from bucket
        yield from self._others

    def __bool__(self) -> bool:
        return bool(self._by_label or self._others)


def required_label(selector: LabelSelector) -> _Label | None:
    """A label, value included, without which nothing matches the selector; None if it insists on none."""
    for requirement in selector.requirements:
        if requirement.operator in ("=", "==", "in") and len(requirement.values) == 1:
            return requirement.key, requirement.values[0]
    return None
