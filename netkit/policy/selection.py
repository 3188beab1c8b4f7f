"""Which policies select the pods of one node, and who belongs to the peers they name. Pure, and incremental.

Objects go in one by one; what a change touches is gathered in `changes`. Only policies that select a pod of the node
cost anything beyond being known: their peers are followed, those of the others are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from netkit.policy.index import SelectorIndex, required_label
from netkit.policy.model import (
    Address,
    Block,
    Direction,
    Key,
    NamedPort,
    Pod,
    Policy,
    PortRange,
    Rule,
    Selected,
)

Ports = tuple[PortRange, ...]
"""The numbered ports of a rule."""

Followed = Selected | NamedPort
"""What changes with the pods there are: peers by selectors, and who calls a port by a name."""

SetKey = Followed | Block | Ports
"""What a rule looks something up in."""

Member = tuple[Address] | tuple[Address, int, int]
"""One of the peers; or an address, protocol and number of a port with a name."""

Chosen = Mapping[Direction, tuple[Key, ...]]
"""The policies that isolate a pod. A direction that is missing is not isolated."""

_NOBODY: Chosen = {}
_T = TypeVar("_T")


@dataclass(slots=True)
class Changes:
    """What may have to be written anew: pods of the node, policies by direction, sets that came or went, members."""

    pods: set[Key] = field(default_factory=set)
    policies: set[tuple[Key, Direction]] = field(default_factory=set)
    sets: set[SetKey] = field(default_factory=set)
    members: dict[Followed, set[Member]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pods or self.policies or self.sets or self.members)


class Selection:
    """The view of one node, `node_name`."""

    def __init__(self, node_name: str) -> None:
        self.changes = Changes()
        self._node = node_name
        self._pods: dict[Key, Pod] = {}
        self._pods_of: dict[str, dict[Key, None]] = {}
        self._labelled: dict[tuple[str, str, str], dict[Key, None]] = {}
        self._local_of: dict[str, dict[Key, None]] = {}
        self._named: dict[NamedPort, dict[Key, None]] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._policies: dict[Key, Policy] = {}
        self._selecting: dict[str, SelectorIndex[Key]] = {}
        self._chosen: dict[Key, Chosen] = {}
        self._active: dict[tuple[Key, Direction], set[Key]] = {}
        self._acquired: dict[tuple[Key, Direction], frozenset[SetKey]] = {}
        self._uses: Counter[SetKey] = Counter()
        self._members: dict[Followed, Counter[Member]] = {}
        self._peers_of: dict[str, SelectorIndex[Selected]] = {}
        self._peers_everywhere: SelectorIndex[Selected] = SelectorIndex()

    # reading

    def collect(self) -> Changes:
        """What changed since the last call."""
        found, self.changes = self.changes, Changes()
        return found

    def pod(self, key: Key) -> Pod | None:
        return self._pods.get(key)

    def isolated(self) -> Iterable[Key]:
        """The pods of the node that some policy selects."""
        return self._chosen.keys()

    def chosen(self, key: Key) -> Chosen:
        """The policies that isolate a pod of the node, in the order of their names."""
        return self._chosen.get(key, _NOBODY)

    def active(self) -> Iterable[tuple[Key, Direction]]:
        """The policies that isolate some pod of the node, by direction."""
        return self._active.keys()

    def rules(self, key: Key, direction: Direction) -> tuple[Rule, ...] | None:
        """The rules of an active policy, None for one that is not."""
        return self._policies[key].rules(direction) if (key, direction) in self._active else None

    def sets(self) -> Iterable[SetKey]:
        """Everything that rules of active policies look something up in."""
        return self._uses.keys()

    def has_set(self, key: SetKey) -> bool:
        return key in self._uses

    def members(self, key: Followed) -> Iterable[Member]:
        """Who belongs to a set in use, of both families."""
        return self._members.get(key, Counter[Member]()).keys()

    def has_member(self, key: Followed, member: Member) -> bool:
        return member in self._members.get(key, ())

    def policies_in(self, namespace: str) -> bool:
        """Whether there is any policy in a namespace."""
        return namespace in self._selecting

    def __bool__(self) -> bool:
        return bool(self._policies)

    # changing

    def set_pod(self, key: Key, new: Pod | None) -> None:
        """A pod is now like this; None: there is none of that name (that counts)."""
        old = self._pods.get(key)
        if old == new:
            return
        for followed in self._following(old):
            self._add_members(followed, old, -1)
        if old is not None:
            self._forget(old)
        if new is not None:
            self._remember(new)
        for followed in self._following(new):
            self._add_members(followed, new, 1)
        if any(pod is not None and pod.node == self._node for pod in (old, new)):
            self._choose(key)
            if key in self._chosen:
                self.changes.pods.add(key)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace has these labels; None: it is not there, and no selector of namespaces finds its pods."""
        old = self._namespaces.get(name)
        if old == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        for selected in self._peers_everywhere:
            before = old is not None and selected.namespaces.matches(old)
            after = labels is not None and selected.namespaces.matches(labels)
            if before != after:
                for pod in self._pods_in(name, selected):
                    self._add_members(selected, pod, 1 if after else -1)

    def set_policy(self, key: Key, new: Policy | None) -> None:
        """A policy is now like this; None: it is gone."""
        old = self._policies.get(key)
        if old == new:
            return
        active = {direction for direction in Direction if (key, direction) in self._active}
        index = self._selecting.setdefault(key[0], SelectorIndex())
        if old is not None:
            index.remove(key, old.pods)
        if new is not None:
            index.add(key, new.pods)
            self._policies[key] = new
        if not index:
            del self._selecting[key[0]]
        for pod in list(self._local_of.get(key[0], ())):
            self._choose(pod)
        if new is None:
            del self._policies[key]
            return
        for direction in active:
            changed = old is not None and old.rules(direction) != new.rules(direction)
            if changed and (key, direction) in self._active:
                self._acquire(key, direction)
                self.changes.policies.add((key, direction))

    # pods

    def _remember(self, pod: Pod) -> None:
        key = pod.key
        self._pods[key] = pod
        self._pods_of.setdefault(pod.namespace, {})[key] = None
        for label in pod.labels.items():
            self._labelled.setdefault((pod.namespace, *label), {})[key] = None
        for port in pod.ports:
            self._named.setdefault(NamedPort(port.protocol, port.name), {})[key] = None
        if pod.node == self._node:
            self._local_of.setdefault(pod.namespace, {})[key] = None

    def _forget(self, pod: Pod) -> None:
        key = pod.key
        del self._pods[key]
        _discard(self._pods_of, pod.namespace, key)
        for label in pod.labels.items():
            _discard(self._labelled, (pod.namespace, *label), key)
        for port in pod.ports:
            _discard(self._named, NamedPort(port.protocol, port.name), key)
        if pod.node == self._node:
            _discard(self._local_of, pod.namespace, key)

    def _choose(self, key: Key) -> None:
        """Find the policies of a pod of the node anew."""
        pod = self._pods.get(key)
        before, after = self._chosen.get(key, _NOBODY), self._policies_of(pod)
        if before == after:
            return
        self.changes.pods.add(key)
        if after:
            self._chosen[key] = after
        else:
            del self._chosen[key]
        for direction in Direction:
            then, now = set(before.get(direction, ())), set(after.get(direction, ()))
            for policy in now - then:
                self._activate(policy, direction, key)
            for policy in then - now:
                self._deactivate(policy, direction, key)

    def _policies_of(self, pod: Pod | None) -> Chosen:
        """The policies that isolate a pod. One without addresses has nothing that could be isolated yet."""
        if pod is None or pod.node != self._node or not pod.addresses:
            return _NOBODY
        index = self._selecting.get(pod.namespace)
        if index is None:
            return _NOBODY
        found = sorted(index.matching(pod.labels))
        chosen: dict[Direction, tuple[Key, ...]] = {}
        for direction in Direction:
            keys = tuple(key for key in found if self._policies[key].rules(direction) is not None)
            if keys:
                chosen[direction] = keys
        return chosen

    # policies

    def _activate(self, policy: Key, direction: Direction, pod: Key) -> None:
        pods = self._active.setdefault((policy, direction), set())
        if not pods:
            self._acquire(policy, direction)
            self.changes.policies.add((policy, direction))
        pods.add(pod)

    def _deactivate(self, policy: Key, direction: Direction, pod: Key) -> None:
        pods = self._active[policy, direction]
        pods.remove(pod)
        if not pods:
            del self._active[policy, direction]
            self._release(self._acquired.pop((policy, direction)))
            self.changes.policies.add((policy, direction))

    def _acquire(self, policy: Key, direction: Direction) -> None:
        """Have the sets of a policy's rules, in place of those it had."""
        rules = self._policies[policy].rules(direction) or ()
        wanted = frozenset(key for rule in rules for key in set_keys(rule))
        for key in wanted:
            self._uses[key] += 1
            if self._uses[key] == 1:
                self.changes.sets.add(key)
                if isinstance(key, Selected | NamedPort):
                    self._follow(key)
        self._release(self._acquired.get((policy, direction), frozenset()))
        self._acquired[policy, direction] = wanted

    def _release(self, keys: Iterable[SetKey]) -> None:
        for key in keys:
            self._uses[key] -= 1
            if self._uses[key]:
                continue
            del self._uses[key]
            self.changes.sets.add(key)
            if isinstance(key, Selected | NamedPort):
                del self._members[key]
            if isinstance(key, Selected):
                self._unfollow(key)

    # members

    def _follow(self, key: Followed) -> None:
        self._members[key] = Counter()
        if isinstance(key, NamedPort):
            found: Iterable[Pod] = [self._pods[pod] for pod in self._named.get(key, ())]
        else:
            index = self._peers_everywhere
            if key.namespace:
                index = self._peers_of.setdefault(key.namespace, SelectorIndex())
            index.add(key, key.pods)
            found = self._peers(key)
        for pod in found:
            self._members[key].update(_members(key, pod))

    def _unfollow(self, key: Selected) -> None:
        if not key.namespace:
            self._peers_everywhere.remove(key, key.pods)
            return
        index = self._peers_of[key.namespace]
        index.remove(key, key.pods)
        if not index:
            del self._peers_of[key.namespace]

    def _peers(self, key: Selected) -> Iterator[Pod]:
        if key.namespace:
            yield from self._pods_in(key.namespace, key)
            return
        for name, labels in self._namespaces.items():
            if key.namespaces.matches(labels):
                yield from self._pods_in(name, key)

    def _pods_in(self, namespace: str, key: Selected) -> Iterator[Pod]:
        """The pods of a namespace that match the selector of pods."""
        label = required_label(key.pods)
        keys = self._pods_of.get(namespace) if label is None else self._labelled.get((namespace, *label))
        for name in keys or ():
            if key.pods.matches(self._pods[name].labels):
                yield self._pods[name]

    def _following(self, pod: Pod | None) -> list[Followed]:
        """The sets in use that a pod belongs to."""
        if pod is None or not pod.addresses:
            return []
        found: list[Followed] = [
            key
            for key in {NamedPort(port.protocol, port.name): None for port in pod.ports}
            if key in self._members
        ]
        own = self._peers_of.get(pod.namespace)
        if own is not None:
            found += own.matching(pod.labels)
        labels = self._namespaces.get(pod.namespace)
        if labels is not None:
            found += (
                key for key in self._peers_everywhere.matching(pod.labels) if key.namespaces.matches(labels)
            )
        return found

    def _add_members(self, key: Followed, pod: Pod | None, count: int) -> None:
        """Count what a pod contributes: two pods may have one address for the moment in which it changes hands."""
        if pod is None:
            return
        members, touched = self._members[key], self.changes.members.setdefault(key, set())
        for member in _members(key, pod):
            members[member] += count
            if not members[member]:
                del members[member]
            touched.add(member)


def set_keys(rule: Rule) -> Iterator[SetKey]:
    """The sets that a rule needs."""
    yield from rule.peers or ()
    if rule.ports:
        yield from (port for port in rule.ports if isinstance(port, NamedPort))
        if numbered := numbered_ports(rule):
            yield numbered


def numbered_ports(rule: Rule) -> Ports:
    """The ports of a rule that have numbers; those that touch are joined."""
    found: list[PortRange] = []
    for port in sorted(port for port in rule.ports or () if isinstance(port, PortRange)):
        last = found[-1] if found else None
        if last is not None and last.protocol == port.protocol and port.first <= last.last + 1:
            found[-1] = PortRange(port.protocol, last.first, max(last.last, port.last))
        else:
            found.append(port)
    return tuple(found)


def _members(key: Followed, pod: Pod) -> Iterator[Member]:
    if isinstance(key, Selected):
        for address in pod.addresses:
            yield (address,)
        return
    for port in {port.number for port in pod.ports if (port.protocol, port.name) == (key.protocol, key.name)}:
        for address in pod.addresses:
            yield address, key.protocol, port


def _discard(index: dict[_T, dict[Key, None]], at: _T, key: Key) -> None:
    bucket = index.get(at, {})
    bucket.pop(key, None)
    if not bucket:
        index.pop(at, None)
