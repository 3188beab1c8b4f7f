"""The life of pods as their users see it: restarts, probes, the end."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.cluster import eventually
from support.space import Space, since
from support.workloads import busybox


def test_init_containers_run_one_after_the_other(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: steps}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo one >> /work/order; echo first done"],
     volumeMounts: [{name: work, mountPath: /work}]}
  - {name: second, image: busybox,
     command: [sh, -c, "echo two >> /work/order; until [ -e /work/go ]; do sleep .05; done"],
     volumeMounts: [{name: work, mountPath: /work}]}
  containers:
  - {name: main, image: busybox, command: [sh, -c, "cat /work/order; sleep infinity"],
     volumeMounts: [{name: work, mountPath: /work}]}
  volumes: [{name: work, emptyDir: {}}]
"""
    )
    assert lab.shows("steps", "Init:1/2")[1] == "0/1"
    status = lab.get("pod", "steps")["status"]
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    refused = lab.kubectl("logs", "steps", "-c", "main", check=False)
    assert 'container "main" in pod "steps" is waiting to start: PodInitializing' in refused
    lab.kubectl("exec", "steps", "-c", "second", "--", "touch", "/work/go")
    lab.ready("steps")
    eventually("the order", lambda: lab.kubectl("logs", "steps", "-c", "main") == "one\ntwo\n")
    assert lab.kubectl("logs", "steps", "-c", "first") == "first done\n"
    ended = lab.get("pod", "steps")["status"]["initContainerStatuses"][0]
    assert ended["ready"] is True
    assert ended["state"]["terminated"]["reason"] == "Completed"


@pytest.mark.parametrize(("policy", "shown"), [("Never", "Init:Error"), ("Always", "Init:CrashLoopBackOff")])
def test_a_failing_init_container_holds_the_pod(lab: Space, policy: str, shown: str) -> None:
    lab.apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: stuck}}
spec:
  restartPolicy: {policy}
  initContainers: [{{name: broken, image: busybox, command: [sh, -c, "echo no; exit 4"]}}]
  containers: [{{name: main, image: busybox, command: [sleep, infinity]}}]
"""
    )
    assert lab.shows("stuck", shown)[1] == "0/1"
    status = lab.get("pod", "stuck")["status"]
    assert status["phase"] == ("Failed" if policy == "Never" else "Pending")
    state = status["initContainerStatuses"][0]
    ended = state["state"].get("terminated") or state["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (4, "Error")
    assert "started" not in status["containerStatuses"][0] or not status["containerStatuses"][0]["started"]
    conditions = {c["type"]: c for c in status["conditions"]}
    assert conditions["Initialized"]["message"] == "containers with incomplete status: [broken]"


def test_restart_policies_decide_the_phase(lab: Space) -> None:
    lab.apply(
        "---".join(
            (
                busybox("done", "echo bye", policy="Never"),
                busybox("broken", "exit 3", policy="Never"),
                busybox("fine", "echo once", policy="OnFailure"),
                busybox(
                    "second-try",
                    "[ -e /work/tried ] && exit 0\ntouch /work/tried; exit 9",
                    policy="OnFailure",
                    more="volumeMounts: [{name: work, mountPath: /work}]",
                )
                + "  volumes: [{name: work, emptyDir: {}}]\n",
            )
        )
    )
    assert lab.reaches("done", "Succeeded")["status"]["containerStatuses"][0]["state"]["terminated"] | {
        "startedAt": "", "finishedAt": "", "containerID": "",
    } == {"exitCode": 0, "reason": "Completed", "startedAt": "", "finishedAt": "", "containerID": ""}  # fmt: skip
    assert lab.shows("done", "Completed")[1:4] == ["0/1", "Completed", "0"]
    failed = lab.reaches("broken", "Failed")
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert lab.shows("broken", "Error")[1:4] == ["0/1", "Error", "0"]
    assert lab.reaches("fine", "Succeeded")["status"]["containerStatuses"][0]["restartCount"] == 0
    again = lab.reaches("second-try", "Succeeded")["status"]["containerStatuses"][0]
    assert again["restartCount"] == 1
    assert again["lastState"]["terminated"]["exitCode"] == 9
    assert lab.kubectl("logs", "done") == "bye\n"
    ready = {c["type"]: c for c in lab.get("pod", "done")["status"]["conditions"]}["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")


def test_a_crashing_container_backs_off_and_keeps_its_previous_log(lab: Space) -> None:
    lab.apply(busybox("loop", "echo process $$$$ says hello; echo last words > /dev/termination-log; exit 2"))
    row = lab.shows("loop", "CrashLoopBackOff")
    assert row[1:4] == ["0/1", "CrashLoopBackOff", "1"]
    assert re.fullmatch(r"\(\d+s", row[4])
    status = lab.container("loop")
    waiting = status["state"]["waiting"]
    uid = lab.get("pod", "loop")["metadata"]["uid"]
    assert waiting == {
        "reason": "CrashLoopBackOff",
        "message": f"back-off 10s restarting failed container=main pod=loop_{lab.name}({uid})",
    }
    last = status["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (2, "Error", "last words\n")
    assert lab.get("pod", "loop")["status"]["phase"] == "Running"
    assert lab.kubectl("logs", "loop", "--previous") == "process 1 says hello\n"
    message = lab.event("loop", "BackOff")
    assert message == f"Back-off restarting failed container main in pod loop_{lab.name}({uid})"
    described = lab.kubectl("describe", "pod", "loop")
    assert re.search(r"Last State: +Terminated\n +Reason: +Error\n +Message: +last words", described)
    eventually("a second restart", lambda: lab.container("loop")["restartCount"] == 2)
    assert lab.container("loop")["lastState"]["terminated"]["exitCode"] == 2
    for reason in ("Pulled", "Created", "Started"):
        assert lab.event("loop", reason)


def test_a_killed_process_and_its_last_words(lab: Space) -> None:
    lab.apply(
        busybox(
            "victim",
            "echo first\necho final words\nsleep infinity",
            more="terminationMessagePolicy: FallbackToLogsOnError",
        )
    )
    uid = lab.ready("victim")["metadata"]["uid"]
    # Process 1 of the container ignores signals from inside its namespace; this one comes from the machine.
    inside = [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdigit() and _reads(f"/proc/{entry}/mountinfo", f"/pods/{uid}/") and _ns_pid(entry) == 1
    ]
    assert len(inside) == 1
    os.kill(inside[0], signal.SIGKILL)
    eventually("restarted", lambda: lab.container("victim").get("restartCount") == 1)
    ended = lab.container("victim")["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")
    assert ended["message"] == "first\nfinal words\n"
    assert lab.ready("victim")["metadata"]["uid"] == uid
    # Deleted by force, nothing of it stays.
    lab.kubectl("delete", "pod", "victim", "--force", "--grace-period=0")
    assert "NotFound" in lab.kubectl("get", "pod", "victim", check=False)
    eventually(
        "no process of it",
        lambda: (
            not [
                e
                for e in os.listdir("/proc")
                if e.isdigit() and _reads(f"/proc/{e}/mountinfo", f"/pods/{uid}/")
            ]
        ),
    )
    eventually(
        "no namespace of it",
        lambda: (
            not [n for n in os.listdir("/run/netns") if n.startswith(f"{lab.cluster.name}.{lab.name}.victim")]
        ),
    )


def _reads(path: str, text: str) -> bool:
    try:
        return text in Path(path).read_text()
    except OSError:
        return False


def _ns_pid(pid: str) -> int:
    """The process' number in its innermost PID namespace, 0 when it is gone."""
    try:
        found = re.search(r"NSpid:.*?(\d+)\n", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def test_a_command_that_does_not_exist_says_so(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: typo}
spec: {containers: [{name: main, image: busybox, command: [nosuchprogram, --flag]}]}
"""
    )

    def error() -> str | None:
        state = lab.container("typo").get("state", {})
        ended = lab.container("typo").get("lastState", {}).get("terminated", {})
        text: str = state.get("waiting", {}).get("message", "") + ended.get("message", "")
        return text if "nosuchprogram" in text else None

    text = eventually("the reason", error)
    assert 'exec: "nosuchprogram": executable file not found in $PATH' in text
    assert lab.row("pod", "typo")[2] in ("RunContainerError", "CrashLoopBackOff")
    assert lab.container("typo")["lastState"]["terminated"]["exitCode"] == 128
    assert "executable file not found" in lab.event("typo", "Failed")


def test_a_container_that_lacks_its_configuration_waits_for_it(lab: Space) -> None:
    lab.apply(
        busybox("wants", "echo got $COLOR; sleep infinity", more="envFrom: [{configMapRef: {name: later}}]")
    )
    lab.shows("wants", "CreateContainerConfigError")
    assert lab.container("wants")["state"]["waiting"]["message"] == 'configmap "later" not found'
    assert lab.event("wants", "Failed") == 'Error: configmap "later" not found'
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {COLOR: green}\n")
    lab.ready("wants")
    assert lab.kubectl("logs", "wants") == "got green\n"


@pytest.mark.parametrize(
    ("probe", "toggle"),
    [
        ("exec: {command: [test, -e, /tmp/ok]}", ("touch /tmp/ok", "rm /tmp/ok")),
        ("httpGet: {path: /ok, port: web}", ("touch /tmp/ok", "rm /tmp/ok")),
        (
            "tcpSocket: {port: 8080}",
            ("busybox httpd -p 8080 -h /tmp", "kill $(pidof busybox)"),
        ),
    ],
    ids=["exec", "http", "tcp"],
)
def test_readiness_decides_who_serves(lab: Space, probe: str, toggle: tuple[str, str]) -> None:
    serve = "" if "tcp" in probe else "busybox httpd -p 8080 -h /tmp\n"
    lab.apply(
        busybox(
            "gated",
            f"{serve}sleep infinity",
            more="ports: [{name: web, containerPort: 8080}]\n"
            f"readinessProbe: {{{probe}, periodSeconds: 1, failureThreshold: 1}}",
        )
    )
    lab.apply(
        """
apiVersion: v1
kind: Service
metadata: {name: gated}
spec: {selector: {app: gated}, ports: [{port: 80, targetPort: web}]}
"""
    )
    eventually("it runs", lambda: "running" in lab.container("gated").get("state", {}))
    assert "Readiness probe failed" in lab.event("gated", "Unhealthy")
    assert lab.row("pod", "gated")[1:3] == ["0/1", "Running"]
    conditions = {c["type"]: c for c in lab.get("pod", "gated")["status"]["conditions"]}
    assert conditions["Ready"]["message"] == "containers with unready status: [main]"

    def addresses() -> tuple[int, int]:
        subsets = lab.get("endpoints", "gated").get("subsets") or [{}]
        return len(subsets[0].get("addresses") or ()), len(subsets[0].get("notReadyAddresses") or ())

    eventually("known but not ready", lambda: addresses() == (0, 1))
    address = lab.get("service", "gated")["spec"]["clusterIP"]
    assert lab.cluster.curl("node1", f"http://{address}/") == ""
    lab.sh("gated", toggle[0])
    eventually("ready", lambda: addresses() == (1, 0))
    lab.sh("gated", "echo here > /tmp/page")
    eventually("it answers", lambda: lab.cluster.curl("node1", f"http://{address}/page") == "here\n")
    lab.sh("gated", toggle[1])
    eventually("unready again", lambda: addresses() == (0, 1))
    assert lab.container("gated")["restartCount"] == 0


def test_a_failing_liveness_probe_restarts_the_container(lab: Space) -> None:
    lab.apply(
        busybox(
            "ill",
            "touch /tmp/alive; echo up; trap 'echo asked; exit 0' TERM; while :; do sleep .1; done",
            more="livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2}",
        )
    )
    lab.ready("ill")
    lab.sh("ill", "rm /tmp/alive")
    eventually("restarted", lambda: lab.container("ill")["restartCount"] == 1)
    assert (
        lab.event("ill", "Unhealthy") == "Liveness probe failed: cat: /tmp/alive: No such file or directory\n"
    )
    assert lab.event("ill", "Killing") == "Container main failed liveness probe, will be restarted"
    assert lab.kubectl("logs", "ill", "-p") == "up\nasked\n"
    lab.ready("ill")


def test_a_startup_probe_holds_the_others_back(lab: Space) -> None:
    lab.apply(
        busybox(
            "slow",
            "sleep infinity",
            more="""startupProbe: {exec: {command: [test, -e, /tmp/started]}, periodSeconds: 1, failureThreshold: 60}
livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1}
readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}""",
        )
    )
    assert "Startup probe failed" in lab.event("slow", "Unhealthy")
    eventually(
        "two failures of it",
        lambda: any(
            event["reason"] == "Unhealthy" and event.get("count", 1) >= 2
            for event in lab.items("events", "--field-selector", "involvedObject.name=slow")
        ),
    )
    status = lab.container("slow")
    assert (status["started"], status["ready"], status["restartCount"]) == (False, False, 0)
    lab.sh("slow", "touch /tmp/started")
    eventually("liveness counts now", lambda: lab.container("slow")["restartCount"] == 1)


def test_termination_runs_the_hook_signals_and_waits(lab: Space, tmp_path: Path) -> None:
    out = tmp_path / "words"
    out.mkdir()
    lab.apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: polite}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep .05; done"]
    lifecycle: {{preStop: {{exec: {{command: [sh, -c, "echo hook >> /out/log"]}}}}}}
    volumeMounts: [{{name: out, mountPath: /out}}]
  - name: stubborn
    image: busybox
    command: [sh, -c, "trap '' TERM; while :; do sleep .05; done"]
  volumes: [{{name: out, hostPath: {{path: {out}}}}}]
"""
    )
    lab.ready("polite")
    begin = time.monotonic()
    lab.kubectl("delete", "pod", "polite", "--wait=false")
    assert lab.shows("polite", "Terminating")
    eventually(
        "hook, then signal", lambda: (out / "log").exists() and (out / "log").read_text() == "hook\nterm\n"
    )
    assert lab.get("pod", "polite")["metadata"]["deletionGracePeriodSeconds"] == 20
    # A shorter time on a second delete counts: the container that ignores SIGTERM is killed then.
    lab.kubectl("delete", "pod", "polite", "--grace-period=2")
    assert 2 <= since(begin) < 15
    assert "NotFound" in lab.kubectl("get", "pod", "polite", check=False)
    assert lab.event("polite", "Killing").startswith("Stopping container ")


def test_a_pod_that_is_going_leaves_its_service(lab: Space) -> None:
    lab.apply(busybox("leaving", "trap '' TERM; busybox httpd -p 8080; while :; do sleep .1; done"))
    lab.kubectl("patch", "pod", "leaving", "--type=merge", "-p", '{"metadata":{"labels":{"web":"yes"}}}')
    lab.apply(
        """
apiVersion: v1
kind: Service
metadata: {name: leaving}
spec: {selector: {web: "yes"}, ports: [{port: 80, targetPort: 8080}]}
"""
    )
    lab.ready("leaving")

    def conditions() -> list[Any]:
        slices = lab.items("endpointslices", "-l", "kubernetes.io/service-name=leaving")
        return [e["conditions"] for s in slices for e in s.get("endpoints") or ()]

    eventually("it serves", lambda: conditions() == [{"ready": True, "serving": True, "terminating": False}])
    lab.kubectl("delete", "pod", "leaving", "--wait=false", "--grace-period=15")
    eventually("it ends", lambda: conditions() == [{"ready": False, "serving": True, "terminating": True}])
    assert not lab.get("endpoints", "leaving").get("subsets")
    lab.kubectl("delete", "pod", "leaving", "--now")
    eventually("it is gone", lambda: conditions() == [])


def test_a_pod_whose_namespace_was_taken_away_begins_anew(lab: Space) -> None:
    lab.apply(
        busybox("torn", "trap 'exit 0' TERM; busybox httpd -p 8080 -h /etc; while :; do sleep .1; done")
    )
    before = lab.ready("torn")["status"]["podIP"]
    namespace = next(
        name for name in os.listdir("/run/netns") if name.startswith(f"{lab.cluster.name}.{lab.name}.torn.")
    )
    subprocess.run(["ip", "netns", "delete", namespace], check=True)
    lab.kubectl("annotate", "pod", "torn", "look=again")
    assert lab.event("torn", "SandboxChanged") == "Pod sandbox changed, it will be killed and re-created."
    eventually("restarted", lambda: lab.container("torn").get("restartCount") == 1)
    after = lab.ready("torn")["status"]["podIP"]
    assert after != before
    assert after in lab.sh("torn", "ip -4 -o addr show eth0")
    eventually(
        "it is reached", lambda: lab.cluster.curl("node1", f"http://{after}:8080/hostname") == "torn\n"
    )


def test_tables_of_pods(lab: Space) -> None:
    lab.apply(busybox("one", "sleep infinity") + "---" + busybox("two", "sleep infinity"))
    for name in ("one", "two"):
        lab.ready(name)
    wide = lab.kubectl("get", "pods", "-o", "wide").splitlines()
    assert wide[0].split() == [
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED",
        "NODE",
        "READINESS",
        "GATES",
    ]
    row = wide[1].split()
    assert (row[0], row[1], row[2], row[3], row[7], row[8]) == (
        "one",
        "1/1",
        "Running",
        "0",
        "<none>",
        "<none>",
    )
    assert re.fullmatch(r"\d+s", row[4])
    node = lab.get("pod", "one")["spec"]["nodeName"]
    names = lab.kubectl(
        "get", "pods", "--field-selector", f"spec.nodeName={node},status.phase=Running", "-o", "name"
    )
    assert "pod/one" in names
    assert (
        lab.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}", "--sort-by=.metadata.name")
        == "one two"
    )
    assert lab.kubectl("get", "pods", "--show-labels").splitlines()[1].endswith("app=one")
    secret = base64.b64encode(b"x").decode()
    lab.apply(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{k: {secret}}}\n")
    assert lab.row("secret", "s")[:3] == ["s", "Opaque", "1"]
