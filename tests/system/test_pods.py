"""The life of pods as their users see it: containers, probes, files, logs, and kubectl's streams into them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.space import Space, background, since, space

SLEEP = "[sleep, infinity]"


@pytest.fixture
def lab(cluster: Cluster) -> Iterator[Space]:
    """A namespace of the test's own."""
    with space(cluster) as made:
        yield made


def pod(name: str, script: str, *, policy: str = "Always", more: str = "", labels: str = "") -> str:
    """A pod of one busybox container `main` that runs a shell script; `more` are further fields of the container."""
    lines = "".join(f"\n    {line}" for line in more.splitlines())
    body = "".join(f"\n      {line}" for line in script.splitlines())
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}{labels}}}}}
spec:
  restartPolicy: {policy}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c]
    args:
    - |{body}{lines}
"""


# containers and restarts


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
  - {name: second, image: busybox, command: [sh, -c, "echo two >> /work/order; until [ -e /work/go ]; do sleep .05; done"],
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
  containers: [{{name: main, image: busybox, command: {SLEEP}}}]
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
                pod("done", "echo bye", policy="Never"),
                pod("broken", "exit 3", policy="Never"),
                pod("fine", "echo once", policy="OnFailure"),
                pod(
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
    lab.apply(pod("loop", "echo process $$$$ says hello; echo last words > /dev/termination-log; exit 2"))
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
    eventually("a second restart", lambda: lab.container("loop")["restartCount"] == 2, 20)
    assert lab.container("loop")["lastState"]["terminated"]["exitCode"] == 2
    for reason in ("Pulled", "Created", "Started"):
        assert lab.event("loop", reason)


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
        pod("wants", "echo got $COLOR; sleep infinity", more="envFrom: [{configMapRef: {name: later}}]")
    )
    lab.shows("wants", "CreateContainerConfigError")
    assert lab.container("wants")["state"]["waiting"]["message"] == 'configmap "later" not found'
    assert lab.event("wants", "Failed") == 'Error: configmap "later" not found'
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {COLOR: green}\n")
    lab.ready("wants")
    assert lab.kubectl("logs", "wants") == "got green\n"


# probes


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
        pod(
            "gated",
            f"{serve}sleep infinity",
            more=f"ports: [{{name: web, containerPort: 8080}}]\nreadinessProbe: {{{probe}, periodSeconds: 1, failureThreshold: 1}}",
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
        pod(
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
        pod(
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


# the end of a pod


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
    lab.apply(pod("leaving", "trap '' TERM; busybox httpd -p 8080; while :; do sleep .1; done"))
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


# configuration and files


def test_environment_and_volumes(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, "app.conf": "a=1\\n"}
binaryData: {blob: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: s3cret}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full, tier: web}, annotations: {note: hello}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox
    command: [sleep, infinity]
    workingDir: /data
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: MAYBE, valueFrom: {secretKeyRef: {name: nothing, key: x, optional: true}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: MIXED, value: "$(COLOR)-$$(COLOR)-$(NOPE)"}
    envFrom: [{prefix: CM_, configMapRef: {name: settings}}]
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: scratch, mountPath: /data}
    - {name: conf, mountPath: /etc/conf, readOnly: true}
    - {name: conf, mountPath: /etc/single.conf, subPath: app.conf}
    - {name: keys, mountPath: /etc/keys}
    - {name: info, mountPath: /etc/info}
  - {name: other, image: busybox, command: [sleep, infinity], volumeMounts: [{name: scratch, mountPath: /shared}]}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: conf, configMap: {name: settings, items: [{key: app.conf, path: sub/app.conf}, {key: blob, path: blob}, {key: app.conf, path: app.conf}]}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"""
    )
    found = lab.ready("full")
    environment = dict(
        line.split("=", 1) for line in lab.sh("full", "env -0", "-c", "main").split("\0") if line
    )
    expected = {
        "COLOR": "blue", "PASSWORD": "s3cret", "NODE": found["spec"]["nodeName"], "POD": "full",
        "SPACE": lab.name, "ADDRESS": found["status"]["podIP"], "HOST": found["status"]["hostIP"],
        "NOTE": "hello", "MEMORY": str(64 * 1024 * 1024), "MIXED": "blue-$(COLOR)-$(NOPE)",
        "CM_color": "blue", "HOSTNAME": "full", "KUBERNETES_SERVICE_PORT": "443",
    }  # fmt: skip
    assert {key: environment.get(key) for key in expected} == expected
    assert "MAYBE" not in environment
    main = ("-c", "main")
    assert lab.sh("full", "pwd; cat /etc/conf/sub/app.conf /etc/single.conf", *main) == "/data\na=1\na=1\n"
    assert lab.sh("full", "od -An -tx1 /etc/conf/blob; ls -L /etc/conf", *main).split() == [
        "00", "01", "02", "app.conf", "blob", "sub",
    ]  # fmt: skip
    assert lab.sh("full", "cat /etc/keys/password; stat -Lc %a /etc/keys/password", *main) == "s3cret400\n"
    assert lab.sh("full", "cat /etc/info/labels", *main) == 'app="full"\ntier="web"'
    refused = lab.kubectl("exec", "full", *main, "--", "touch", "/etc/conf/new", check=False)
    assert "Read-only file system" in refused
    lab.sh("full", "echo shared > file", *main)
    assert lab.sh("full", "cat /shared/file", "-c", "other") == "shared\n"

    lab.kubectl("patch", "pod", "full", "--type=merge", "-p", '{"metadata":{"labels":{"tier":"db"}}}')
    described = lab.kubectl("describe", "pod", "full")
    assert "<set to the key 'password' in secret 'keys'>" in described
    assert re.search(r"/etc/single.conf from conf \(rw,path=\"app.conf\"\)", described)


def test_a_pod_has_its_own_view_of_the_system(lab: Space) -> None:
    lab.apply(
        pod("own", "sleep infinity")
        + """  hostname: custom
  subdomain: inner
  hostAliases: [{ip: 192.0.2.7, hostnames: [legacy, legacy.example]}]
  dnsConfig: {searches: [example.org], options: [{name: ndots, value: "2"}]}
"""
    )
    found = lab.ready("own")
    address = found["status"]["podIP"]
    assert lab.sh("own", "hostname; cat /etc/hostname") == "custom\ncustom\n"
    hosts = lab.sh("own", "cat /etc/hosts")
    assert f"{address}\tcustom.inner.{lab.name}.svc.cluster.local\tcustom\n" in hosts
    assert "# Entries added by HostAliases.\n192.0.2.7\tlegacy\tlegacy.example\n" in hosts
    assert lab.sh("own", "cat /etc/resolv.conf") == (
        f"search {lab.name}.svc.cluster.local svc.cluster.local cluster.local example.org\n"
        "nameserver 10.96.0.10\noptions ndots:2\n"
    )
    # Processes, mounts, IPC and the network are the pod's own.
    processes = lab.sh("own", "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm")
    assert int(processes.split()[0]) < 8
    assert processes.split()[1] == "sh"
    links = lab.sh("own", "ls /sys/class/net").split()
    assert links == ["eth0", "lo"]
    assert address in lab.sh("own", "ip -4 -o addr show eth0")
    # What is written to / stays in the pod, and goes with it.
    mark = f"/etc/mark-{lab.name}"
    lab.sh("own", f"echo x > {mark}; echo x > /root/mark; echo x > /var/mark; rm -rf /usr/share/doc")
    assert not os.path.exists(mark)
    assert not os.path.exists("/root/mark")
    assert os.path.isdir("/usr/share/doc")
    assert lab.sh("own", f"cat {mark}") == "x\n"
    # A second pod does not see it, nor the first one's processes.
    lab.apply(pod("other", "sleep infinity"))
    lab.ready("other")
    assert "No such file" in lab.kubectl("exec", "other", "--", "cat", mark, check=False)
    refused = lab.kubectl("exec", "own", "--", "ip", "link", "set", "eth0", "down", check=False)
    assert "Operation not permitted" in refused


def test_a_pod_on_the_nodes_network(lab: Space) -> None:
    lab.apply(pod("host", "busybox httpd -f -p 8099") + "  hostNetwork: true\n")
    found = lab.ready("host")
    assert found["status"]["podIP"] == found["status"]["hostIP"]
    node = found["spec"]["nodeName"]
    assert lab.sh("host", "hostname").strip() == node
    assert "cni0" in lab.sh("host", "ls /sys/class/net")
    assert "nameserver 10.96.0.10" not in lab.sh("host", "cat /etc/resolv.conf")
    code = lab.cluster.on(
        "client",
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        f"http://{found['status']['hostIP']}:8099/",
    )
    assert code == "404"
    lab.kubectl("delete", "pod", "host", "--now")
    assert lab.cluster.on(node, "ip", "-o", "link", "show", "eth0")


def test_security_context_and_users(lab: Space) -> None:
    lab.apply(
        pod("user", "id; sleep infinity", more="securityContext: {runAsUser: 1000, runAsGroup: 3000}")
        + "  securityContext: {fsGroup: 2000, supplementalGroups: [4000]}\n"
    )
    lab.ready("user")
    assert lab.sh("user", "id -u; id -g; id -G").split() == ["1000", "3000", "3000", "2000", "4000"]
    assert "Permission denied" in lab.kubectl("exec", "user", "--", "touch", "/etc/x", check=False)


# images


def test_an_image_that_is_added_starts_the_waiting_pod(lab: Space, cluster: Cluster) -> None:
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\n"
        'spec: {containers: [{name: web, image: "registry.local/shop:1"}]}\n'
    )
    eventually("no image", lambda: lab.row("pod", "shop")[2] in ("ErrImagePull", "ImagePullBackOff"))
    refused = lab.kubectl("logs", "shop", check=False)
    assert 'container "web" in pod "shop" is waiting to start: ' in refused
    assert "netkit image add" in lab.event("shop", "Failed")
    begin = time.monotonic()
    cluster.netkit(
        "image", "add", "registry.local/shop", "--builtin", "nginx", "--port", "8080", "-p", cluster.name
    )
    found = lab.ready("shop")
    assert since(begin) < 15
    assert found["status"]["containerStatuses"][0]["image"] == "registry.local/shop:1"
    assert "Welcome to nginx!" in cluster.curl("node1", f"http://{found['status']['podIP']}:8080/")
    cluster.netkit("image", "rm", "registry.local/shop", "-p", cluster.name)


def test_a_root_directory_is_an_image(lab: Space, cluster: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "bin" / "busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    for library in re.findall(
        r"(/lib\S+)",
        subprocess.run(["ldd", "/usr/bin/busybox"], capture_output=True, text=True, check=False).stdout,
    ):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / library[1:]).write_bytes(Path(library).read_bytes())
        (root / library[1:]).chmod(0o755)
    for applet in ("sh", "cat", "ls", "sleep", "echo", "touch"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "os-release").write_text("ID=tiny\n")
    cluster.netkit(
        "image", "add", "tiny", "--root", str(root), "--entrypoint", "/bin/sh", "--entrypoint", "-c",
        "--cmd", "echo $GREETING from $PWD; sleep 1000", "--env", "GREETING=hello", "--workdir", "/etc", "-p", cluster.name,
    )  # fmt: skip
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: tiny}\nspec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: tiny}]}\n"
    )
    lab.ready("tiny")
    eventually("its greeting", lambda: lab.kubectl("logs", "tiny") == "hello from /etc\n")
    assert lab.sh("tiny", "cat os-release; ls /usr 2>&1 | cat; touch /made").startswith("ID=tiny\n")
    assert not (root / "made").exists()
    assert not (root / "proc").exists()
    assert "search" in lab.sh("tiny", "cat /etc/resolv.conf")


# kubectl's streams


def test_exec_passes_streams_and_exit_codes(lab: Space) -> None:
    lab.apply(pod("shell", "sleep infinity"))
    lab.ready("shell")
    for code in (0, 1, 42, 137, 255):
        result = lab.run("exec", "shell", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
        assert result.returncode == code
        assert result.stdout == b"out\n"
        assert result.stderr.startswith(b"err\n")
        assert (b"command terminated with exit code" in result.stderr) == (code != 0)
    killed = lab.run("exec", "shell", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 137

    data = os.urandom(3_000_000)
    echoed = lab.run("exec", "-i", "shell", "--", "cat", stdin=data)
    assert hashlib.sha256(echoed.stdout).digest() == hashlib.sha256(data).digest()
    large = lab.run("exec", "shell", "--", "sh", "-c", "head -c 30000000 /dev/zero; echo done >&2")
    assert (len(large.stdout), large.stderr) == (30_000_000, b"done\n")
    # A program that reads no input and one that ends while input is coming.
    assert lab.run("exec", "-i", "shell", "--", "true", stdin=data).returncode == 0
    assert lab.run("exec", "-i", "shell", "--", "head", "-c", "5", stdin=b"12345678").stdout == b"12345"

    missing = lab.run("exec", "shell", "--", "nosuchprogram")
    assert missing.returncode != 0
    assert b'exec: "nosuchprogram": executable file not found in $PATH' in missing.stderr
    assert b'pods "nobody" not found' in lab.run("exec", "nobody", "--", "true").stderr
    assert (
        b"container nope is not valid for pod shell"
        in lab.run("exec", "shell", "-c", "nope", "--", "true").stderr
    )


def test_exec_with_spdy_works_as_with_websockets(lab: Space) -> None:
    lab.apply(pod("shell", "sleep infinity"))
    lab.ready("shell")
    lab.cluster.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] = "false"
    lab.cluster.environment["KUBECTL_PORT_FORWARD_WEBSOCKETS"] = "false"
    try:
        data = os.urandom(2_000_000)
        result = lab.run("exec", "-i", "shell", "--", "sh", "-c", "cat; echo err >&2; exit 6", stdin=data)
        assert (result.returncode, result.stdout == data) == (6, True)
        assert result.stderr.startswith(b"err\n")
        with Terminal(lab, "exec", "-it", "shell", "--", "sh") as terminal:
            terminal.say("tty; exit 4\n")
            terminal.until(r"/dev/pts/\d+")
            assert terminal.wait() == 4
    finally:
        del lab.cluster.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"]
        del lab.cluster.environment["KUBECTL_PORT_FORWARD_WEBSOCKETS"]


class Terminal:
    """kubectl on a terminal of its own."""

    def __init__(self, where: Space, *arguments: str, size: tuple[int, int] = (24, 80)) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.master, slave = pty.openpty()
        self._set_size = lambda rows, columns: fcntl.ioctl(
            self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0)
        )
        self._set_size(*size)
        self.text = ""
        self.process = subprocess.Popen(
            where.command(*arguments), stdin=slave, stdout=slave, stderr=slave, env=where.cluster.environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def say(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        self._set_size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def until(self, pattern: str, seconds: float = 15) -> re.Match[str]:
        """Read until the pattern appears in what came since the last match."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert re.search(pattern, self.text), f"no {pattern!r} in {self.text!r}"
        self.text = self.text[found.end() :]
        return found

    def wait(self, seconds: float = 15) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still running: {self.text!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    continue
        return code


def test_a_terminal_is_a_terminal(lab: Space) -> None:
    lab.apply(pod("shell", "sleep infinity"))
    lab.ready("shell")
    with Terminal(lab, "exec", "-it", "shell", "--", "sh", size=(33, 101)) as terminal:
        terminal.say(
            "tty; stty size; echo TERM=$TERM; test -t 0 && test -t 1 && test -t 2 && echo all three\n"
        )
        terminal.until(r"\n/dev/pts/\d+\r\n")
        terminal.until(r"33 101\r\n")
        terminal.until(r"TERM=xterm\r\n")
        terminal.until(r"all three\r\n")
        terminal.resize(50, 120)

        def resized() -> bool:
            terminal.say("stty size\n")
            return terminal.until(r"\n(\d+ \d+)\r\n").group(1) == "50 120"

        eventually("the new size", resized)
        # Ctrl-C reaches the program in front, not kubectl.
        terminal.say("sleep 100\n")
        terminal.until(r"sleep 100\r\n")
        eventually("it runs", lambda: "sleep 100" in lab.sh("shell", "ps ax"))
        terminal.say("\x03")
        terminal.until(r"\^C")
        terminal.say("echo still here\n")
        terminal.until(r"still here\r\n")
        terminal.say("exit 7\n")
        assert terminal.wait() == 7
        assert "command terminated with exit code 7" in terminal.text
    # Leaving without a word ends the program.
    with Terminal(lab, "exec", "-it", "shell", "--", "sh", "-c", "echo begun; exec sleep 4321") as terminal:
        terminal.until("begun")
    eventually("the program ended", lambda: "sleep 4321" not in lab.sh("shell", "ps ax"))


def test_attach_joins_the_container(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: session}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, stdin: true, tty: true, command: [sh]}]
---
apiVersion: v1
kind: Pod
metadata: {name: ticker}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, command: [sh, -c, "i=0; while :; do echo tick $((i=i+1)); sleep .1; done"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, stdin: true, stdinOnce: true, command: [sha256sum]}]
"""
    )
    for name in ("session", "ticker", "once"):
        lab.ready(name)
    with Terminal(lab, "attach", "-it", "session") as terminal:
        terminal.until("press")
        terminal.say("\n")
        terminal.until("# ")
        terminal.say("tty; echo I am $$\n")
        terminal.until(r"/dev/pts/\d+\r\n")
        terminal.until(r"I am 1\r\n")
        terminal.say("exit 3\n")
        assert terminal.wait() == 0
        assert "Session ended, resume using" in terminal.text
    eventually("the shell is back", lambda: lab.container("session")["restartCount"] == 1)
    assert lab.container("session")["lastState"]["terminated"]["exitCode"] == 3
    with background(lab, "attach", "ticker") as watching:
        watching.until("ticks", lambda lines: sum("tick" in line for line in lines) >= 3)
    sent = lab.run("attach", "-i", "once", stdin=b"abc")
    assert sent.returncode == 0, sent
    lab.reaches("once", "Succeeded")
    assert lab.kubectl("logs", "once").split()[0] == hashlib.sha256(b"abc").hexdigest()


def test_logs(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: talk, labels: {app: talk}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {name: main, image: busybox, command: [sh, -c, "for i in 1 2 3 4 5; do echo line $i; done; echo wrong >&2; printf 'a\\\\rb\\\\n'; until [ -e /tmp/go ]; do sleep .05; done; echo more; printf unfinished"]}
  - {name: other, image: busybox, command: [sh, -c, "echo from other; head -c 40000 /dev/zero | tr '\\\\0' x; echo; sleep infinity"]}
"""
    )
    lab.ready("talk")
    full = "".join(f"line {i}\n" for i in range(1, 6))
    main = ("logs", "talk", "-c", "main")
    eventually("its lines", lambda: "a\rb" in lab.run(*main).stdout.decode())
    text = lab.run(*main).stdout.decode()
    assert sorted(text.split("\n")) == sorted((full + "wrong\na\rb\n").split("\n"))
    defaulted = lab.run("logs", "talk")
    assert b'Defaulted container "main" out of: main, other' in defaulted.stderr
    assert len(lab.run(*main, "--tail=2").stdout.split(b"\n")) == 3
    assert lab.kubectl(*main, "--tail=0") == ""
    assert lab.kubectl(*main, "--limit-bytes=4") == "line"
    for line in lab.run(*main, "--timestamps", "--tail=3").stdout.decode().strip().split("\n"):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", line)
    assert lab.kubectl("logs", "talk", "-c", "other").endswith("from other\n" + "x" * 40000 + "\n")
    both = lab.kubectl("logs", "talk", "--all-containers", "--prefix")
    assert "[pod/talk/main] line 1\n" in both
    assert "[pod/talk/other] from other\n" in both
    assert "line 5" in lab.kubectl("logs", "-l", "app=talk", "-c", "main", "--tail=-1")
    assert lab.kubectl(*main, "--since=1h").startswith("line 1\n")
    assert lab.kubectl(*main, "--since-time=2099-01-01T00:00:00Z") == ""
    refused = lab.kubectl(*main, "--previous", check=False)
    assert 'previous terminated container "main" in pod "talk" not found' in refused
    assert "container nope is not valid for pod talk" in lab.kubectl(
        "logs", "talk", "-c", "nope", check=False
    )
    with background(lab, *main, "-f", "--tail=1") as following:
        following.until("the last line", lambda lines: lines)
        lab.sh("talk", "touch /tmp/go", "-c", "main")
        following.until("the new line", lambda lines: "more" in lines)
        assert following.wait() == 0
        assert following.lines[-1] == "unfinished"
    assert lab.kubectl(*main).endswith("more\nunfinished")


def test_cp_both_ways(lab: Space, tmp_path: Path) -> None:
    lab.apply(pod("box", "sleep infinity"))
    lab.ready("box")
    data = os.urandom(1_500_000)
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "data").write_bytes(data)
    (tree / "note").write_text("hello\n")
    lab.kubectl("cp", str(tree), "box:/tmp/tree")
    assert lab.sh("box", "find /tmp/tree -type f | sort; cat /tmp/tree/note").split() == [
        "/tmp/tree/deep/data", "/tmp/tree/note", "hello",
    ]  # fmt: skip
    assert lab.sh("box", "sha256sum /tmp/tree/deep/data").split()[0] == hashlib.sha256(data).hexdigest()
    lab.kubectl("cp", "box:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "data").read_bytes() == data
    lab.kubectl("cp", "box:/tmp/tree/note", str(tmp_path / "note"), "-c", "main")
    assert (tmp_path / "note").read_text() == "hello\n"


@pytest.mark.parametrize("websockets", ["true", "false"])
def test_port_forward(lab: Space, websockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lab.cluster.environment, "KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
    lab.apply(
        pod(
            "web",
            "head -c 5000000 /dev/zero > /tmp/big; echo page > /tmp/index.html; busybox httpd -f -p 127.0.0.1:8080 -h /tmp",
        )
    )
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    lab.ready("web")
    for target, port in (("pod/web", 8080), ("service/web", 80)):
        with background(lab, "port-forward", target, f":{port}", ":9999") as forwarding:
            forwarding.until(
                "the ports",
                lambda lines: (
                    sum("Forwarding from 127.0.0.1" in line for line in lines)
                    == (2 if target == "pod/web" else 1)
                    or any("error" in line for line in lines)
                ),
            )
            if target == "service/web":
                # The Service has no port 9999.
                assert any("does not have a service port 9999" in line for line in forwarding.lines)
                continue
            local = [
                int(re.search(r"127.0.0.1:(\d+)", line).group(1))
                for line in forwarding.lines
                if "127.0.0.1" in line
            ]  # type: ignore[union-attr]
            for _ in range(3):
                assert _fetch(local[0], "/index.html") == b"page\n"
            assert len(_fetch(local[0], "/big")) == 5_000_000
            # Nobody listens there: that connection fails, the others go on.
            with socket.create_connection(("127.0.0.1", local[1]), 5) as refused:
                assert refused.recv(10) == b""
            forwarding.until(
                "the reason", lambda lines: any("9999" in line and "refused" in line for line in lines)
            )
    with background(lab, "port-forward", "service/web", ":80") as forwarding:
        forwarding.until("the port", lambda lines: any("-> 8080" in line for line in lines))
        found = re.search(r"127.0.0.1:(\d+)", forwarding.lines[0])
        assert found
        assert _fetch(int(found.group(1)), "/index.html") == b"page\n"


def _fetch(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        received = bytearray()
        while data := connection.recv(65536):
            received += data
    return bytes(received).split(b"\r\n\r\n", 1)[1]


def test_tables_of_pods(lab: Space) -> None:
    lab.apply(pod("one", "sleep infinity") + "---" + pod("two", "sleep infinity"))
    for name in ("one", "two"):
        lab.ready(name)
    wide = lab.kubectl("get", "pods", "-o", "wide").splitlines()
    assert wide[0].split() == "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES".split()
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
