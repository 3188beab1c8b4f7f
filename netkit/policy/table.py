"""What one family's table holds, and the messages that turn it into what the selection asks for. Pure.

A table begins with what was read from the kernel, so that a restart writes only what differs. Where no pod of the node
is isolated there is no table at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from netkit.kernel.nft.expressions import decode, encode
from netkit.kernel.nft.objects import Chain, Contents, Element, SetSpec, TableWriter, spans_of
from netkit.kernel.nft.objects import Rule as KernelRule
from netkit.policy.model import Direction, Key, NamedPort, Selected
from netkit.policy.render import PODS, TABLE, Renderer, Rules, pod_chain, policy_chain, set_name
from netkit.policy.selection import Changes, Followed, Member, Selection, SetKey


class Table:
    """The table of one family. `contents` None: there is none in the kernel.

    `full` and `partial` give the messages of one transaction, and leave those of a second one in `later`: a packet on
    its way through rules that are replaced may ask their sets after the kernel has changed over, and must not find them
    empty. Both are taken for granted to be committed: after a failure make a new table from what stands.
    """

    def __init__(self, family: int, contents: Contents | None) -> None:
        self._renderer = Renderer(family)
        self._writer = TableWriter(family, TABLE)
        self._there = contents is not None
        found = contents or Contents()
        self._chains: dict[str, Chain] = dict(found.chains)
        self._rules: dict[str, list[KernelRule]] = dict(found.rules)
        self._sets: dict[str, SetSpec] = dict(found.sets)
        self._elements: dict[str, dict[bytes, Element]] = {
            name: {element.key: element for element in elements} for name, elements in found.elements.items()
        }
        self._spans = {
            name: spans_of(found.elements[name])
            for name, spec in found.sets.items()
            if spec.interval and len(spec.key) == 1
        }
        self._pods: dict[Key, dict[Direction, list[Element]]] = {}
        self._begin()

    @property
    def rules(self) -> int:
        """How many rules it has."""
        return sum(map(len, self._rules.values()))

    def full(self, selection: Selection) -> list[bytes]:
        """Everything, whatever stands."""
        self._begin()
        self._pods.clear()
        if not self._needed(selection, selection.isolated()):
            return self._nothing()
        self._kept: set[str] = set()
        for spec in self._renderer.maps():
            self._put_set(spec)
        for key in selection.sets():
            self._put(selection, key)
        for policy, direction in selection.active():
            self._policy(selection, policy, direction)
        for pod in selection.isolated():
            self._pod(selection, pod)
        for chain, rules in self._renderer.chains():
            self._put_chain(chain, rules)
        leading = {
            name: {e.key for found in self._pods.values() for e in found.get(direction, ())}
            for direction, name in PODS.items()
        }
        for name, keys in leading.items():
            for address, element in list(self._elements[name].items()):
                if address not in keys:
                    self._take_lead(name, element)
        for name in [name for name in self._chains if name not in self._kept]:
            self._drop_chain(name)
        for name in [name for name in self._sets if name not in self._kept]:
            self._drop_set(name)
        return self._messages()

    def partial(self, selection: Selection, changes: Changes) -> list[bytes]:
        """What the changes ask for."""
        if not self._needed(selection, [*self._pods, *changes.pods]):
            return self._nothing()
        if not self._there:
            return self.full(selection)
        self._begin()
        self._kept = set()
        for key in changes.sets:
            if selection.has_set(key):
                self._put(selection, key)
        for followed, members in changes.members.items():
            if selection.has_set(followed) and followed not in changes.sets:
                self._move(selection, followed, members)
        for policy, direction in changes.policies:
            self._policy(selection, policy, direction)
        for pod in changes.pods:
            self._pod(selection, pod)
        for key in changes.sets:
            if not selection.has_set(key):
                self._drop_set(set_name(key))
        return self._messages()

    def _needed(self, selection: Selection, pods: Iterable[Key]) -> bool:
        """Whether one of the pods is isolated and has an address of the family."""
        for key in pods:
            pod = selection.pod(key) if selection.chosen(key) else None
            if pod is not None and any(a.version == self._renderer.version for a in pod.addresses):
                return True
        return False

    def _nothing(self) -> list[bytes]:
        self._begin()
        there, self._there = self._there, False
        for known in (self._chains, self._rules, self._sets, self._elements, self._spans, self._pods):
            known.clear()
        return [self._writer.delete_table()] if there else []

    # what is wanted

    def _put(self, selection: Selection, key: SetKey) -> None:
        """Have a set, with exactly its elements."""
        spec = self._renderer.set_of(key)
        if spec is None:
            return
        fresh = self._put_set(spec)
        name = spec.name
        if isinstance(key, Selected | NamedPort):
            found = map(self._renderer.element, selection.members(key))
            wanted = {element.key: element for element in found if element is not None}
            self._change(name, wanted, set(self._elements[name]) - set(wanted))
            return
        elements = self._renderer.constant_elements(key)
        if spec.interval and len(spec.key) == 1:
            spans = spans_of(elements)
            if not fresh and self._spans.get(name) == spans:
                return
            same = False
            self._spans[name] = spans
        else:
            same = set(self._elements[name].values()) == set(elements)
        if same:
            return
        if self._elements[name]:
            self._gone.append(self._writer.flush_set(name))
        self._elements[name] = {element.key: element for element in elements}
        self._came += self._writer.add_elements(name, elements)

    def _move(self, selection: Selection, key: Followed, members: Iterable[Member]) -> None:
        """Bring some members of a set to what they should be."""
        wanted: dict[bytes, Element] = {}
        gone: set[bytes] = set()
        for member in members:
            element = self._renderer.element(member)
            if element is None:
                continue
            if selection.has_member(key, member):
                wanted[element.key] = element
            else:
                gone.add(element.key)
        self._change(set_name(key), wanted, gone)

    def _change(self, name: str, wanted: dict[bytes, Element], unwanted: Iterable[bytes]) -> None:
        standing = self._elements[name]
        gone = [standing.pop(key) for key in sorted(unwanted) if key in standing]
        came = [wanted[key] for key in sorted(wanted) if key not in standing]
        self._gone += self._writer.delete_elements(name, gone)
        self._came += self._writer.add_elements(name, came)
        standing.update((element.key, element) for element in came)

    def _policy(self, selection: Selection, policy: Key, direction: Direction) -> None:
        rules = selection.rules(policy, direction)
        name = policy_chain(policy, direction)
        if rules is None:
            self._drop_chain(name)
        else:
            self._put_chain(Chain(name), self._renderer.policy_rules(policy, direction, rules))

    def _pod(self, selection: Selection, key: Key) -> None:
        """Lead to a pod's chains, or no more."""
        pod, chosen = selection.pod(key), selection.chosen(key)
        before, after = self._pods.pop(key, {}), dict[Direction, list[Element]]()
        for direction in Direction:
            name, policies = pod_chain(key, direction), chosen.get(direction)
            elements = self._renderer.pod_elements(pod, direction) if pod is not None and policies else []
            for element in before.get(direction, ()):
                # Another pod may have the address by now.
                if element not in elements and self._elements[PODS[direction]].get(element.key) == element:
                    self._take_lead(PODS[direction], element)
            if pod is None or policies is None or not elements:
                self._drop_chain(name)
                continue
            after[direction] = elements
            self._put_chain(Chain(name), self._renderer.pod_rules(pod, direction, policies))
            for element in elements:
                self._lead(PODS[direction], element)
        if after:
            self._pods[key] = after

    # what stands

    def _begin(self) -> None:
        self._new: list[bytes] = []
        self._flushed: list[bytes] = []
        self._gone: list[bytes] = []
        self._came: list[bytes] = []
        self._written: list[bytes] = []
        self._leads: list[bytes] = []
        self._last: list[bytes] = []
        self.later: list[bytes] = []
        self._kept = set()

    def _messages(self) -> list[bytes]:
        """Things are made empty, then filled, and removed when nothing leads to them any more."""
        found = [
            *self._new, *self._flushed, *self._gone, *self._came, *self._written, *self._leads, *self._last,
        ]  # fmt: skip
        if found and not self._there:
            found.insert(0, self._writer.add_table("NetworkPolicy"))
        self._there = True
        return found

    def _put_set(self, spec: SetSpec) -> bool:
        """Have a set; whether it is new, and so empty."""
        self._kept.add(spec.name)
        if self._sets.get(spec.name) == spec:
            return False
        if spec.name in self._sets:
            # Made by somebody else: it goes with all that uses it, which is written anew.
            self._replace(spec.name)
        self._new.append(self._writer.add_set(spec))
        self._sets[spec.name], self._elements[spec.name] = spec, {}
        return True

    def _replace(self, name: str) -> None:
        for chain in self._rules:
            if self._rules[chain]:
                self._new.append(self._writer.flush_chain(chain))
                self._rules[chain] = []
        self._new.append(self._writer.delete_set(name))

    def _drop_set(self, name: str) -> None:
        if self._sets.pop(name, None) is not None:
            self._elements.pop(name, None)
            self._spans.pop(name, None)
            self.later.append(self._writer.delete_set(name))

    def _put_chain(self, chain: Chain, rules: Rules) -> None:
        name = chain.name
        self._kept.add(name)
        standing = self._chains.get(name)
        if standing is None:
            self._new.append(self._writer.add_chain(chain))
            self._rules[name] = []
        elif standing.hook != chain.hook:
            # Wrong hook: no chain changes its hook, it is made anew.
            self._new += [self._writer.flush_chain(name), self._writer.delete_chain(name)]
            self._new.append(self._writer.add_chain(chain))
            self._rules[name] = []
        self._chains[name] = chain
        if _same(self._rules[name], rules):
            return
        if self._rules[name]:
            self._flushed.append(self._writer.flush_chain(name))
        self._written += [self._writer.add_rule(name, *rule) for rule in rules]
        self._rules[name] = [KernelRule(encode(expressions), comment) for expressions, comment in rules]

    def _drop_chain(self, name: str) -> None:
        if self._chains.pop(name, None) is not None:
            self._rules.pop(name)
            self._flushed.append(self._writer.flush_chain(name))
            self._last.insert(0, self._writer.delete_chain(name))

    def _lead(self, name: str, element: Element) -> None:
        standing = self._elements[name].get(element.key)
        if standing == element:
            return
        if standing is not None:
            self._take_lead(name, standing)
        self._leads += self._writer.add_elements(name, [element])
        self._elements[name][element.key] = element

    def _take_lead(self, name: str, element: Element) -> None:
        del self._elements[name][element.key]
        self._leads += self._writer.delete_elements(name, [element])


def _same(standing: list[KernelRule], rules: Rules) -> bool:
    """Whether rules mean what stands; what was counted does not matter."""
    return len(standing) == len(rules) and all(
        have.comment == comment and decode(have.expressions) == expressions
        for have, (expressions, comment) in zip(standing, rules, strict=True)
    )
