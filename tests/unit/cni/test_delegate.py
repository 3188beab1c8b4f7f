from __future__ import annotations

import json
from pathlib import Path

import pytest

from netkit.cni.cache import Cached
from netkit.cni.chain import Runtime
from netkit.cni.conflist import parse
from netkit.cni.errors import PluginFailed
from netkit.cni.request import Attachment
from netkit.podnet.pod import PodRef

PLUGIN = """#!/bin/sh
name=$(basename "$0")
config=$(cat)
echo "$name $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $XTABLES_LOCKFILE $config" >> "{place}/calls"
[ "$CNI_COMMAND" = ADD ] && echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "10.0.0.2/24"}}], "by": "'$name'"}}'
{then}
"""


def plugin(place: Path, name: str, then: str = "exit 0") -> None:
    (place / name).write_text(PLUGIN.format(place=place, then=then))
    (place / name).chmod(0o755)


def calls(place: Path) -> list[tuple[str, str, dict[str, object]]]:
    found = []
    for line in (place / "calls").read_text().splitlines():
        words, config = line.split(" ", 7)[:7], json.loads(line.split(" ", 7)[7])
        assert words[2:] == ["c1", "/run/netns/c1", "eth0", "A=b", "/lock"]
        found.append((words[0], words[1], config))
    return found


def chain(place: Path, version: str = "1.0.0") -> tuple[Runtime, Cached]:
    listed = parse(
        json.dumps({"cniVersion": version, "name": "n", "plugins": [{"type": "one"}, {"type": "two"}]})
    )
    cached = Cached(PodRef("default", "web", "u"), "c1", Attachment("c1", "eth0"), listed, "A=b")
    return Runtime(None, (str(place),), {"XTABLES_LOCKFILE": "/lock"}), cached


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_chain_runs_forth_and_back(tmp_path: Path, version: str) -> None:
    from dataclasses import replace

    plugin(tmp_path, "one")
    plugin(tmp_path, "two")
    runtime, cached = chain(tmp_path, version)
    result = runtime.add(cached, "/run/netns/c1")
    assert result["by"] == "two"
    cached = replace(cached, result=result)
    runtime.check(cached, "/run/netns/c1")
    runtime.delete(cached, "/run/netns/c1")
    told = calls(tmp_path)
    checked = [] if version == "0.3.1" else [("one", "CHECK"), ("two", "CHECK")]
    assert [call[:2] for call in told] == [
        ("one", "ADD"), ("two", "ADD"), *checked, ("two", "DEL"), ("one", "DEL"),
    ]  # fmt: skip
    assert "prevResult" not in told[0][2]
    assert told[1][2]["prevResult"] == {**result, "by": "one"}
    for _, _, config in told[2:]:
        assert config.get("prevResult") == (None if version == "0.3.1" else result)
        assert (config["name"], config["cniVersion"]) == ("n", version)


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (
            """echo '{"code": 11, "msg": "no", "details": "busy"}'; exit 1""",
            'plugin type="two" failed (add): no; busy',
        ),
        ("echo broken >&2; exit 3", 'plugin type="two" failed (add): broken'),
        ("exit 4", 'plugin type="two" failed (add): exit status 4'),
    ],
)
def test_a_refusal_is_told_in_the_plugins_words(tmp_path: Path, then: str, message: str) -> None:
    plugin(tmp_path, "one")
    plugin(tmp_path, "two", then)
    text = (tmp_path / "two").read_text()
    (tmp_path / "two").write_text(text.replace('[ "$CNI_COMMAND" = ADD ] && echo', ": "))
    runtime, cached = chain(tmp_path)
    with pytest.raises(PluginFailed) as caught:
        runtime.add(cached, "/run/netns/c1")
    assert str(caught.value) == message
    assert caught.value.plugin == "two"


def test_a_plugin_that_is_not_there_or_says_nothing_is_named(tmp_path: Path) -> None:
    runtime, cached = chain(tmp_path)
    with pytest.raises(PluginFailed, match=f'failed to find plugin "one" in path .{tmp_path}.'):
        runtime.add(cached, "/run/netns/c1")
    for text, why in (
        ("#!/bin/sh\ncat >/dev/null\n", "gave no result"),
        ("#!/bin/sh\ncat >/dev/null; echo x\n", "JSON"),
    ):
        (tmp_path / "one").write_text(text)
        (tmp_path / "one").chmod(0o755)
        with pytest.raises(PluginFailed, match=why):
            runtime.add(cached, "/run/netns/c1")
