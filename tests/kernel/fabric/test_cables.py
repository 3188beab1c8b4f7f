"""Cables that are pulled, machines that the switch keeps apart, and machines that come and go."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

from support.kernel import machine_ns, own_host, ping, spec_of, wait_for

from netkit.fabric import cables
from netkit.fabric.build import Fabric, build
from netkit.fabric.spec import FabricSpec
from netkit.kernel import netns, netns_directory, process, rtnl_read
from netkit.kernel.ledger import Entry, EntryKind, Ledger, read_all
from netkit.kernel.teardown import end_owner, remove_owner, teardown

MACHINES = ("one", "two", "three", "client")


def reached(fabric: Fabric) -> set[tuple[str, str]]:
    """Who reaches whom."""
    return {
        (one, other)
        for one, other in permutations(fabric.machines, 2)
        if ping(machine_ns(fabric, one), str(fabric.machines[other].address.ip), patience=0.3)
    }


def everybody(spec: FabricSpec) -> set[tuple[str, str]]:
    return set(permutations([machine.name for machine in spec.machines], 2))


@own_host
def test_a_cable_is_pulled_and_plugged_in_again(tmp_path: Path) -> None:
    spec = spec_of(*MACHINES)
    ledger = Ledger(tmp_path, "me")
    with build(spec, ledger) as fabric:
        assert cables.read(fabric.switch, MACHINES) == cables.Cables(frozenset(), frozenset())
    cut = replace(spec, unplugged=frozenset({"two"}))
    # Once to change it, once to find that nothing has to be changed.
    for _ in range(2):
        with build(cut, ledger) as fabric:
            assert reached(fabric) == {pair for pair in everybody(spec) if "two" not in pair}
            assert cables.read(fabric.switch, MACHINES).down == {"two"}
    with build(spec, ledger) as fabric:
        assert reached(fabric) == everybody(spec)
    teardown(tmp_path)


@own_host
def test_a_machine_can_come_without_its_cable(tmp_path: Path) -> None:
    with build(replace(spec_of(*MACHINES), unplugged=frozenset({"two"})), Ledger(tmp_path, "me")) as fabric:
        assert cables.read(fabric.switch, MACHINES).down == {"two"}
        assert not ping(machine_ns(fabric, "one"), "172.18.0.3", patience=0.3)
    teardown(tmp_path)


@own_host
def test_the_switch_keeps_machines_apart_and_only_those(tmp_path: Path) -> None:
    spec = spec_of("one", "two", "three", "a-machine-with-a-long-name")
    with build(spec, Ledger(tmp_path, "me")) as fabric:
        names = list(fabric.machines)
        long = names[3]
        for pairs in ({("one", "two")}, {("one", "two"), (long, "three")}, {("one", long)}, set()):
            for _ in range(2):
                cables.keep_apart(fabric.switch, spec, pairs)
            both = {way for pair in pairs for way in permutations(pair)}
            assert reached(fabric) == everybody(spec) - both
            assert cables.read(fabric.switch, names).apart == {tuple(sorted(pair)) for pair in pairs}
            assert cables.read(fabric.switch, names).down == frozenset()
        # Nothing is left of it in the switch.
        assert process.run(["nft", "list", "ruleset"], ns=fabric.switch, check=True).stdout == b""
    teardown(tmp_path)


@own_host
def test_what_somebody_else_drops_is_not_taken_for_ours_and_ours_is_put_right(tmp_path: Path) -> None:
    spec = spec_of(*MACHINES)
    with build(spec, Ledger(tmp_path, "me")) as fabric:
        cables.keep_apart(fabric.switch, spec, [("one", "two")])
        process.run(["nft", "flush", "chain", "bridge", "netkit", "apart"], ns=fabric.switch, check=True)
        assert cables.read(fabric.switch, MACHINES).apart == frozenset()
        cables.keep_apart(fabric.switch, spec, [("one", "two")])
        assert ("one", "two") not in reached(fabric)
    teardown(tmp_path)


@own_host
def test_a_machine_is_taken_away_and_another_gets_its_place(tmp_path: Path) -> None:
    spec = spec_of(*MACHINES)
    ledger = Ledger(tmp_path, "me")
    with build(spec, ledger) as fabric:
        cables.remove(fabric.switch, "two")
        # A second time there is nothing to do.
        cables.remove(fabric.switch, "two")
        assert "two" not in rtnl_read.links(fabric.switch)
        assert "eth0" not in rtnl_read.links(machine_ns(fabric, "two"))
    netns.delete("kt.two", ledger)
    fewer = replace(spec, machines=tuple(m for m in spec.machines if m.name != "two"))
    with build(fewer, ledger) as fabric:
        assert set(fabric.machines) == {"one", "three", "client"}
        assert not netns.exists("kt.two")
    for _ in range(10):
        with build(spec, ledger) as fabric:
            # A port that has just come up may lose the first packet.
            assert wait_for(lambda fabric=fabric: reached(fabric) == everybody(spec))
            cables.remove(fabric.switch, "two")
        netns.delete("kt.two", ledger)
    teardown(tmp_path)


@own_host
def test_one_owners_things_go_and_the_others_stay(tmp_path: Path) -> None:
    place = tmp_path / "ledger"
    node, other = Ledger(place, "node4"), Ledger(place, "node5")
    # As each owner's process does.
    netns_directory.ensure_directory(other)
    netns_directory.ensure_directory(node, afresh=True)
    for name, ledger in (("kt.a", node), ("kt.b", node), ("kt.c", other)):
        netns.create(name, ledger).close()
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    for path, ledger in ((gone, node), (kept, other)):
        ledger.intend(Entry(EntryKind.DIRECTORY, str(path)))
        path.mkdir()
        (path / "file").touch()
    child = process.fork_recorded(node, "left over", lambda: wait_for(lambda: False, 60.0) or 0)
    node.close()
    remove_owner(place, "node4")
    remove_owner(place, "node4")
    assert child.wait() != 0
    assert netns.names() == ["kt.c"]
    assert (gone.exists(), kept.exists()) == (False, True)
    assert sorted(path.name for path in place.iterdir()) == ["node5.jsonl"]
    assert {entry.name for entry in read_all(place)} >= {"kt.c", str(kept)}
    teardown(place)
    assert not kept.exists()


@own_host
def test_one_owners_processes_are_killed_and_all_else_stays(tmp_path: Path) -> None:
    place = tmp_path / "ledger"
    node, other = Ledger(place, "node4"), Ledger(place, "node5")
    netns.create("kt.a", node).close()
    dying, living = (
        process.fork_recorded(ledger, "tunnel", lambda: wait_for(lambda: False, 60.0) or 0)
        for ledger in (node, other)
    )
    end_owner(place, "node4")
    end_owner(place, "node4")
    end_owner(place, "nobody")
    assert dying.wait() < 0
    assert living.poll() is None
    assert netns.names() == ["kt.a"]
    recorded = [entry for entry in read_all(place) if entry.kind is EntryKind.PROCESS]
    assert [entry.name for entry in recorded] == [living.entry.name]
    living.terminate(grace=0.0)
    teardown(place)
