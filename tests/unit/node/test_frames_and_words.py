"""Runtime frames, exec's words, and the Node object."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel.netns import HOST
from netkit.node.machine_facts import MachineFacts
from netkit.node.node_object import node_object, node_status
from netkit.node.runtime.frames import Channel, FrameDecoder, FrameError, encode
from netkit.node.runtime.spec import (
    BindMount,
    BuiltinConfig,
    ContainerConfig,
    ContainerState,
    ListenPort,
    Phase,
    state_from_json,
)
from netkit.node.settings import NodeSettings
from netkit.node.streams.exec_protocol import (
    Resize,
    choose,
    exit_status,
    failure_status,
    parse_resize,
    status_bytes,
)


@given(st.lists(st.tuples(st.sampled_from(list(Channel)), st.binary(max_size=50))), st.integers(1, 7))
def test_frames_survive_any_slicing(frames: list[tuple[Channel, bytes]], step: int) -> None:
    stream = b"".join(encode(channel, payload) for channel, payload in frames)
    decoder = FrameDecoder()
    got = [frame for at in range(0, len(stream), step) for frame in decoder.feed(stream[at : at + step])]
    assert got == frames


def test_nonsense_is_no_frame() -> None:
    with pytest.raises(FrameError):
        list(FrameDecoder().feed(b"GET / HTTP/1.1\r\n"))


def test_states_cross_the_socket_unchanged() -> None:
    config = ContainerConfig(
        id="i", pod_namespace="n", pod_name="p", pod_uid="u", name="c", attempt=2, network="ns", hostname="h",
        log_path="/l", builtin=BuiltinConfig("echo", (ListenPort(80), ListenPort(53, "UDP")), "t"), argv=("a",),
        env={"A": "1"}, binds=(BindMount("/a", "/b", True),), addresses=("10.0.0.1",), annotations={"k": "v"},
    )  # fmt: skip
    state = ContainerState(config=config, phase=Phase.EXITED, exit_code=3, reason="Error", finished_at=1.5)
    assert state_from_json(orjson.loads(orjson.dumps(state))) == state


def test_exit_statuses() -> None:
    assert exit_status(0) == {"metadata": {}, "status": "Success"}
    failed = exit_status(7)
    assert failed["reason"] == "NonZeroExitCode"
    assert failed["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert json.loads(status_bytes(failed, "v4.channel.k8s.io")) == failed
    assert status_bytes(exit_status(0), "v3.channel.k8s.io") == b""
    assert status_bytes(failure_status("x"), "") == b"Internal error occurred: x"


def test_resize_messages() -> None:
    assert parse_resize(b'{"Width":101,"Height":33}\n') == Resize(101, 33)
    assert parse_resize(b"[]") is None
    assert parse_resize(b"\xff") is None


def test_versions() -> None:
    supported = ("v5.channel.k8s.io", "v4.channel.k8s.io", "")
    assert choose(["v9", "v4.channel.k8s.io", "v5.channel.k8s.io"], supported) == "v4.channel.k8s.io"
    assert choose([], supported) == ""
    assert choose(["v9"], supported) is None


def test_node_object(tmp_path: Path) -> None:
    settings = NodeSettings(
        cluster="c", node_name="node-1", node_address="172.18.0.2", node_ns=HOST, state_dir=tmp_path,
        runtime_socket=tmp_path / "s", image_file=tmp_path / "i", labels={"zone": "a"},
        taints=({"key": "k", "effect": "NoSchedule"},),
    )  # fmt: skip
    facts = MachineFacts("6.1", "Debian", "amd64", "mid", "bid")
    node = node_object(settings, facts)
    assert node["metadata"]["labels"] == {
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": "node-1", "kubernetes.io/os": "linux", "zone": "a",
    }  # fmt: skip
    assert node["spec"]["taints"] == [{"key": "k", "effect": "NoSchedule"}]
    foreign = {"type": "NetworkUnavailable", "status": "False"}
    old = {"type": "Ready", "status": "True", "lastTransitionTime": "t0"}
    status = node_status(settings, facts, {"conditions": [foreign, old]}, "t1", "")
    by_type = {condition["type"]: condition for condition in status["conditions"]}
    assert by_type["NetworkUnavailable"] == foreign
    assert (by_type["Ready"]["lastTransitionTime"], by_type["Ready"]["lastHeartbeatTime"]) == ("t0", "t1")
    down = node_status(settings, facts, status, "t2", "container runtime is down")
    ready = next(c for c in down["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == (
        "False",
        "KubeletNotReady",
        "container runtime is down",
    )
    assert ready["lastTransitionTime"] == "t2"
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("netkit://")
