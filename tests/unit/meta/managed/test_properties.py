"""Server-side apply and updates against a model of plain sets of paths, which knows neither types nor the wire."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.managed import Live, thing

from controlplane.errors import Conflict
from controlplane.meta.managed.sets import paths
from controlplane.meta.objects import clone

LABELS = {"labels": {"kept": "by its creator"}}
names = st.sampled_from("abc")
texts = st.sampled_from(["1", "2"])
item = st.fixed_dictionaries(
    {}, optional={"value": texts, "labels": st.dictionaries(names, texts, min_size=1)}
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "number": st.integers(0, 2),
        "map": st.dictionaries(names, texts, min_size=1),
        "atomic": st.dictionaries(names, texts, min_size=1),
        "list": st.lists(texts, min_size=1, max_size=3),
        "set": st.lists(names, min_size=1, max_size=3, unique=True),
        "inner": st.fixed_dictionaries({"a": texts}, optional={"b": texts}),
        "items": st.dictionaries(names, item, min_size=1).map(
            lambda found: [{"name": name, **fields} for name, fields in found.items()]
        ),
    },
)
steps = st.lists(
    st.tuples(st.sampled_from(["apply", "force", "update"]), st.sampled_from(["one", "two", "three"]), specs),
    min_size=1,
    max_size=6,
)


def flat(spec):
    """Leaves by path. An item of a list is a leaf of its own beside its fields."""
    found = {}
    for name, value in spec.items():
        if name in ("map", "inner"):
            found.update({(name, key): text for key, text in value.items()})
        elif name == "set":
            found.update({(name, member): True for member in value})
        elif name == "items":
            for entry in value:
                at = (name, entry["name"])
                found[at] = True
                found |= {(*at, key): text for key, text in entry.items() if key != "labels"}
                found |= {(*at, "labels", key): text for key, text in entry.get("labels", {}).items()}
        else:
            found[name,] = json.dumps(value, sort_keys=True)
    return found


def named(path):
    """A path of the wire as one of the model; None for a structure, which the model does not know."""
    if path[0] != "f:spec":
        return None
    found = []
    for element in path[1:]:
        text = element[2:]
        found.append(text if element[0] == "f" else text.removeprefix('{"name":').strip('"}'))
    structures = [["map"], ["inner"], ["set"], ["items"], []]
    if found in structures or (len(found) == 3 and found[2] == "labels"):
        return None
    return tuple(found)


class Model:
    def __init__(self):
        self.live = {}
        self.owners = {}

    def apply(self, who, spec, force):
        wanted, me = flat(spec), (who, "Apply")
        changed = {path for path in wanted if self.live.get(path) != wanted[path]}
        others = {owner: owned for owner, owned in self.owners.items() if owner != me}
        clashes = {(owner, path) for owner, owned in others.items() for path in owned & changed}
        if clashes and not force:
            return clashes
        theirs = set().union(*others.values()) if others else set()
        gone = self.owners.get(me, set()) - wanted.keys() - theirs
        gone |= {path for path in self.live if len(path) > 2 and path[:2] in gone}
        self.live = {path: value for path, value in {**self.live, **wanted}.items() if path not in gone}
        self._take(changed, gone, but=me)
        self.owners[me] = set(wanted)
        self._clean()
        return set()

    def update(self, who, spec):
        wanted, me = flat(spec), (who, "Update")
        changed = {path for path in wanted if self.live.get(path) != wanted[path]}
        gone = self.live.keys() - wanted.keys()
        self.live = wanted
        self._take(changed, gone, but=None)
        self.owners[me] = self.owners.get(me, set()) | changed
        self._clean()

    def _take(self, changed, gone, but):
        for owner in self.owners:
            if owner != but:
                self.owners[owner] = self.owners[owner] - changed - gone

    def _clean(self):
        self.owners = {owner: owned for owner, owned in self.owners.items() if owned}


def owners_of(live):
    found = {}
    for entry in live.entries:
        owned = {named(path) for path in paths(entry["fieldsV1"])} - {None}
        if owned:
            found[entry["manager"], entry["operation"]] = owned
    return found


@settings(deadline=None)
@given(steps)
def test_state_and_owners_are_the_models(found):
    live, model = Live(), Model()
    live.update(thing(LABELS), "creator")
    for verb, who, spec in found:
        if verb == "update":
            live.update(thing(LABELS, **spec), who)
            model.update(who, spec)
        elif clashes := model.apply(who, spec, verb == "force"):
            with pytest.raises(Conflict) as caught:
                live.apply(thing(**spec), who)
            assert len(caught.value.causes) == len(clashes)
        else:
            live.apply(thing(**spec), who, force=verb == "force")
        assert flat(live.spec) == model.live
        assert owners_of(live) == model.owners
        assert set().union(*model.owners.values()) == model.live.keys()


@settings(deadline=None)
@given(steps, specs)
def test_applying_twice_is_applying_once(found, spec):
    live = Live()
    for _, who, before in found:
        live.apply(thing(**before), who, force=True)
    live.apply(thing(**spec), "me", force=True)
    once = clone(live.obj)
    live.time = "2030-01-01T00:00:00Z"
    live.apply(thing(**spec), "me")
    assert live.obj == once


@settings(deadline=None)
@given(specs, specs)
def test_the_stated_order_of_items_is_kept(before, spec):
    live = Live()
    live.update(thing(**before), "other")
    live.apply(thing(**spec), "me", force=True)
    for name, key in (("items", lambda found: found["name"]), ("set", lambda found: found)):
        wanted = [key(found) for found in spec.get(name, ())]
        present = [key(found) for found in live.spec.get(name, ())]
        assert [found for found in present if found in wanted] == wanted
        mine = [found for found in map(key, before.get(name, ())) if found not in wanted]
        assert [found for found in present if found not in wanted] == mine


@settings(deadline=None)
@given(specs, specs)
def test_nothing_given_is_changed(before, spec):
    live = Live()
    live.update(thing(**before), "other")
    stored, wanted = live.obj, thing(**spec)
    copies = clone(stored), clone(wanted)
    live.apply(wanted, "me", force=True)
    assert (stored, wanted) == copies
