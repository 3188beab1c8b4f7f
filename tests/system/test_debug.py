"""kubectl debug and run: ephemeral containers, copies of pods, nodes; and whose processes a container sees."""

from __future__ import annotations

import subprocess
from typing import Any

from support.cluster import eventually, needs_kubectl
from support.space import Space
from support.terminal import Terminal
from support.workloads import busybox

SHARING = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  {what}: true
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: one, image: busybox, command: [sleep, "{number}1"]}}
  - {{name: two, image: busybox, command: [sh, -c, "sleep {number}2 & sleep {number}3"]}}
"""


def ephemeral(lab: Space, pod: str, name: str) -> Any:
    listed = lab.get("pod", pod)["status"].get("ephemeralContainerStatuses") or ()
    return next((status for status in listed if status["name"] == name), None)


@needs_kubectl(27)
def test_a_debug_container_joins_a_running_pod(lab: Space) -> None:
    lab.apply(busybox("app", "echo page > /srv/index.html; busybox httpd -p 8080 -h /srv; sleep 7777"))
    before = lab.ready("app")
    with Terminal(lab, "debug", "-it", "app", "--image=busybox", "--target=main", "-c", "dbg") as terminal:
        terminal.until("press")
        terminal.say("ps ax; busybox wget -qO- http://127.0.0.1:8080/; hostname; tty\n")
        terminal.until("sleep 7777")
        terminal.until(r"page\r\n")
        terminal.until(r"app\r\n/dev/pts/\d+")
        # Others reach it as they reach any container.
        assert "sleep 7777" in lab.sh("app", "ps ax", "-c", "dbg")
        status = ephemeral(lab, "app", "dbg")
        assert "running" in status["state"]
        assert (status["ready"], status["restartCount"]) == (False, 0)
        assert "started" not in status
        terminal.say("exit 3\n")
        assert terminal.wait() == 0
        assert "the ephemeral container will not be restarted" in terminal.text
    ended = eventually("it ended", lambda: ephemeral(lab, "app", "dbg")["state"].get("terminated"))
    assert ended["exitCode"] == 3
    after = lab.get("pod", "app")
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    assert "page" in lab.kubectl("logs", "app", "-c", "dbg")
    assert ("Normal", "Started", "Started container dbg") in lab.events("app")
    shown = lab.kubectl("describe", "pod", "app")
    assert "Ephemeral Containers:\n  dbg:" in shown
    refused = lab.kubectl("debug", "app", "--image=busybox", "--target=nobody", check=False)
    assert 'targetContainerName: Not found: "nobody"' in refused


@needs_kubectl(27)
def test_without_a_target_it_has_processes_of_its_own(lab: Space) -> None:
    lab.apply(busybox("app", "sleep 7777"))
    lab.ready("app")
    lab.kubectl("debug", "app", "--image=busybox", "-c", "own", "--", "sleep", "8888")
    eventually("it runs", lambda: (ephemeral(lab, "app", "own") or {"state": {}})["state"].get("running"))
    seen = lab.sh("app", "ps ax", "-c", "own")
    assert "sleep 8888" in seen
    assert "sleep 7777" not in seen
    lab.kubectl("debug", "app", "--image=no/such:1", "-c", "lost")
    waiting = eventually(
        "no image", lambda: (ephemeral(lab, "app", "lost") or {"state": {}})["state"].get("waiting")
    )
    assert waiting["reason"] in ("ContainerCreating", "ErrImagePull", "ImagePullBackOff")
    lab.kubectl("delete", "pod", "app")
    assert not running("sleep 8888")


def running(command: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return command in listed.splitlines()


@needs_kubectl(27)
def test_debugging_what_the_runtime_serves_itself(lab: Space) -> None:
    lab.kubectl("run", "web", "--image=nginx")
    lab.ready("web")
    script = "sleep 1; busybox wget -qO- http://127.0.0.1/"
    ran = lab.run("debug", "-i", "web", "--image=busybox", "--target=web", "--", "sh", "-c", script)
    assert ran.returncode == 0
    assert b"Welcome to nginx!" in ran.stdout


@needs_kubectl(27)
def test_a_copy_of_a_pod(lab: Space) -> None:
    lab.apply(busybox("app", "sleep 7777"))
    lab.ready("app")
    arguments = ("--copy-to=copy", "--image=busybox", "--share-processes", "-c", "dbg")
    with Terminal(lab, "debug", "-it", "app", *arguments, "--", "sh") as terminal:
        terminal.until("press")
        terminal.say("ps ax; exit\n")
        terminal.until("sleep 7777")
        assert terminal.wait() == 0
    copy = lab.get("pod", "copy")
    assert copy["spec"]["shareProcessNamespace"] is True
    assert "labels" not in copy["metadata"]


@needs_kubectl(27)
def test_a_node_from_inside(lab: Space) -> None:
    (node, *_) = lab.items("nodes")
    name = node["metadata"]["name"]
    (address,) = (a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    with Terminal(lab, "debug", f"node/{name}", "-it", "--image=busybox") as terminal:
        terminal.until("press")
        terminal.say("ip -4 -o addr show dev eth0; chroot /host hostname; ls /host/etc/hostname; exit\n")
        terminal.until(address.replace(".", r"\."))
        terminal.until(rf"{name}\r\n")
        terminal.until("/host/etc/hostname")
        assert terminal.wait() == 0
    (pod,) = (pod for pod in lab.items("pods") if pod["metadata"]["name"].startswith("node-debugger"))
    assert (pod["spec"]["nodeName"], pod["status"]["podIP"]) == (name, address)


def test_containers_of_a_pod_may_share_their_processes(lab: Space) -> None:
    lab.apply(SHARING.format(name="shared", what="shareProcessNamespace", number=616))
    lab.ready("shared")
    seen = lab.sh("shared", "ps ax", "-c", "one")
    assert all(f"sleep 616{number}" in seen for number in (1, 2, 3))
    # Not process 1 any more, so that a plain signal ends it; the other's processes go on.
    lab.sh("shared", "kill $(pgrep -x -f 'sleep 6161')", "-c", "two")
    eventually(
        "a restart", lambda: lab.get("pod", "shared")["status"]["containerStatuses"][0]["restartCount"] == 1
    )
    assert lab.get("pod", "shared")["status"]["containerStatuses"][1]["restartCount"] == 0
    # What the main process leaves behind ends with it.
    lab.sh("shared", "kill $(pgrep -x -f 'sleep 6163')", "-c", "one")
    eventually(
        "a restart", lambda: lab.get("pod", "shared")["status"]["containerStatuses"][1]["restartCount"] == 1
    )
    eventually("it runs", lambda: lab.sh("shared", "pgrep -c -x -f 'sleep 6162'", "-c", "one").strip() == "1")
    lab.kubectl("delete", "pod", "shared")
    assert not any(running(f"sleep 616{number}") for number in (1, 2, 3))


def test_a_pod_may_see_the_machines_processes(lab: Space) -> None:
    lab.apply(SHARING.format(name="host", what="hostPID", number=626))
    lab.ready("host")
    seen = lab.sh("host", "ps ax", "-c", "one")
    assert all(f"sleep 626{number}" in seen for number in (1, 2, 3))
    assert "nk:" in lab.sh("host", "ps -eo comm", "-c", "one")
    lab.kubectl("delete", "pod", "host")
    assert not any(running(f"sleep 626{number}") for number in (1, 2, 3))


def test_run_with_a_terminal(lab: Space) -> None:
    run = ("run", "-it", "--rm", "tool", "--image=busybox", "--restart=Never")
    with Terminal(lab, *run, "--", "sh", size=(33, 101)) as terminal:
        terminal.until("press")
        terminal.say('until [ "$(stty size)" = "33 101" ]; do sleep .05; done; stty size; exit 5\n')
        terminal.until(r"33 101\r\n")
        assert terminal.wait() == 5
        assert 'pod "tool" deleted' in terminal.text
    command = ("--command", "--", "sh", "-c", "cat; exit 7")
    piped = lab.run(
        "run", "-i", "--rm", "pipe", "--image=nginx", "--restart=Never", *command, stdin=b"data\n"
    )
    assert (piped.returncode, b"data\n" in piped.stdout) == (7, True)
    assert lab.items("pods") == []
