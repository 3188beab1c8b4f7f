"""What Deployments, garbage collection and namespaces do, as kubectl shows it."""

from __future__ import annotations

import re
from pathlib import Path

from support.cluster import Cluster, eventually, needs_kubectl
from support.space import Space, background, space
from support.workloads import deployment, pod


def replica_sets(lab: Space) -> dict[str, int]:
    """Replicas wanted of each ReplicaSet, by its revision."""
    return {
        item["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: item["spec"]["replicas"]
        for item in lab.items("replicasets")
    }


# Deployments


def test_recreate_ends_the_old_pods_before_the_new_ones_begin(lab: Space) -> None:
    lab.apply(deployment(more="strategy: {type: Recreate}"))
    assert 'deployment "web" successfully rolled out' in lab.rollout()
    old = {pod["metadata"]["name"] for pod in lab.pods()}
    assert len(old) == 3
    seen: list[set[str]] = []
    lab.kubectl("set", "image", "deployment/web", "web=nginx:1.27")

    def replaced() -> bool:
        seen.append({pod["metadata"]["name"] for pod in lab.items("pods")})
        return len(seen[-1]) == 3 and not seen[-1] & old

    eventually("new pods", replaced)
    assert all(names <= old or not names & old for names in seen), seen
    lab.rollout()
    assert replica_sets(lab) == {"1": 0, "2": 3}


def test_a_rolling_update_loses_no_request(lab: Space) -> None:
    lab.apply(
        deployment(more="strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\nminReadySeconds: 0")
    )
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{port: 80}]}\n"
    )
    lab.rollout()
    address = lab.get("service", "web")["spec"]["clusterIP"]
    eventually("it answers", lambda: lab.cluster.curl("node1", f"http://{address}/"))
    lab.kubectl(
        "patch", "deployment", "web", "-p",
        '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":10,"containers":[{"name":"web",'
        '"lifecycle":{"preStop":{"sleep":{"seconds":1}}}}]}}}}',
    )  # fmt: skip
    lab.rollout()
    before = {pod["metadata"]["name"] for pod in lab.pods()}
    lab.kubectl("rollout", "restart", "deployment/web")
    available: list[int] = []
    codes: list[str] = []
    ask = f"for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 2 -o /dev/null http://{address}/; echo $?; done"

    def done() -> bool:
        codes.extend(lab.cluster.on("node2", "sh", "-c", ask).split())
        available.append(lab.get("deployment", "web")["status"].get("availableReplicas", 0))
        names = {pod["metadata"]["name"] for pod in lab.items("pods", "-l", "app=web")}
        return len(codes) >= 20 and len(names) == 3 and not names & before

    eventually("all pods are new and the old ones gone", done)
    assert min(available) >= 3
    assert set(codes) == {"0"}


def test_pause_gathers_changes_and_resume_rolls_them_out(lab: Space) -> None:
    lab.apply(deployment(replicas=1))
    lab.rollout()
    assert lab.kubectl("rollout", "pause", "deployment/web") == "deployment.apps/web paused\n"
    lab.kubectl("set", "image", "deployment/web", "web=nginx:1.27")
    lab.kubectl("set", "env", "deployment/web", "COLOR=blue")
    refused = lab.kubectl("rollout", "restart", "deployment/web", check=False)
    assert "can't restart paused deployment (run rollout resume first)" in refused
    # Scaling works all the same.
    lab.kubectl("scale", "deployment/web", "--replicas=2")
    eventually("scaled", lambda: lab.get("deployment", "web")["status"].get("readyReplicas") == 2)
    assert replica_sets(lab) == {"1": 2}
    condition = next(
        c for c in lab.get("deployment", "web")["status"]["conditions"] if c["type"] == "Progressing"
    )
    assert (condition["status"], condition["reason"]) == ("Unknown", "DeploymentPaused")
    assert lab.kubectl("rollout", "resume", "deployment/web") == "deployment.apps/web resumed\n"
    lab.rollout()
    assert replica_sets(lab) == {"1": 0, "2": 2}
    container = lab.pods()[0]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("nginx:1.27", [{"name": "COLOR", "value": "blue"}])


def test_history_keeps_causes_and_only_so_many_revisions(lab: Space) -> None:
    lab.apply(deployment(replicas=1, more="revisionHistoryLimit: 2"))
    lab.rollout()
    for number in range(2, 6):
        lab.kubectl("set", "image", "deployment/web", f"web=nginx:1.{number}")
        lab.kubectl(
            "annotate", "deployment/web", f"kubernetes.io/change-cause=version {number}", "--overwrite"
        )
        lab.rollout()
    eventually("two old ones are kept", lambda: set(replica_sets(lab)) == {"3", "4", "5"})
    history = lab.kubectl("rollout", "history", "deployment/web").splitlines()
    assert [line.split(maxsplit=1) for line in history if line] == [
        ["deployment.apps/web"], ["REVISION", "CHANGE-CAUSE"],
        ["3", "version 3"], ["4", "version 4"], ["5", "version 5"],
    ]  # fmt: skip
    details = lab.kubectl("rollout", "history", "deployment/web", "--revision=3")
    assert "deployment.apps/web with revision #3" in details
    assert re.search(r"Image:\s+nginx:1.3\n", details)
    assert (
        lab.kubectl("rollout", "undo", "deployment/web", "--to-revision=3")
        == "deployment.apps/web rolled back\n"
    )
    lab.rollout()
    assert lab.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.3"
    assert set(replica_sets(lab)) == {"4", "5", "6"}
    missing = lab.kubectl("rollout", "undo", "deployment/web", "--to-revision=1", check=False)
    assert "unable to find specified revision 1 in history" in missing


def test_a_bad_image_stops_at_the_progress_deadline(lab: Space) -> None:
    lab.apply(
        deployment(
            more="progressDeadlineSeconds: 3\nstrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}"
        )
    )
    lab.rollout()
    lab.kubectl("set", "image", "deployment/web", "web=example.com/none:1")
    result = lab.run("rollout", "status", "deployment/web", "--timeout=30s")
    assert result.returncode == 1
    assert b'error: deployment "web" exceeded its progress deadline' in result.stderr
    found = lab.get("deployment", "web")
    condition = next(c for c in found["status"]["conditions"] if c["type"] == "Progressing")
    assert (condition["status"], condition["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert re.fullmatch(r'ReplicaSet "web-[a-z0-9]+" has timed out progressing\.', condition["message"])
    assert found["status"]["availableReplicas"] == 2
    assert lab.row("deployment", "web")[1:4] == ["2/3", "2", "2"]
    lab.kubectl("rollout", "undo", "deployment/web")
    lab.rollout()
    assert lab.row("deployment", "web")[1:4] == ["3/3", "3", "3"]


def test_scaling_to_nothing_and_back(lab: Space) -> None:
    lab.apply(deployment(replicas=2))
    lab.rollout()
    assert lab.kubectl("scale", "deployment", "web", "--replicas=0") == "deployment.apps/web scaled\n"
    eventually("no pods", lambda: not lab.items("pods"))
    assert lab.row("deployment", "web")[1:4] == ["0/0", "0", "0"]
    refused = lab.kubectl("scale", "deployment", "web", "--replicas=1", "--current-replicas=5", check=False)
    assert "error: Expected replicas to be 5, was 0" in refused
    lab.kubectl("scale", "deployment", "web", "--replicas=1")
    assert 'deployment "web" successfully rolled out' in lab.rollout()
    assert lab.event("web", "ScalingReplicaSet")
    described = lab.kubectl("describe", "deployment", "web")
    assert re.search(r"Scaled down replica set web-[a-z0-9]+ from 2 to 0", described)
    assert re.search(
        r"Replicas: +1 desired \| 1 updated \| 1 total \| 1 available \| 0 unavailable", described
    )


def test_selectors_do_not_change_and_must_match(lab: Space) -> None:
    lab.apply(deployment())
    changed = deployment().replace("app: web", "app: other")
    refused = lab.kubectl("apply", "-f", "-", check=False, stdin=changed)
    assert refused == (
        'The Deployment "web" is invalid: spec.selector: Invalid value: v1.LabelSelector{MatchLabels:'
        'map[string]string{"app":"other"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: '
        "field is immutable\n"
    )
    apart = deployment("apart").replace("labels: {app: apart}", "labels: {app: elsewhere}")
    refused = lab.kubectl("apply", "-f", "-", check=False, stdin=apart)
    assert refused == (
        'The Deployment "apart" is invalid: spec.template.metadata.labels: Invalid value: '
        'map[string]string{"app":"elsewhere"}: `selector` does not match template `labels`\n'
    )
    assert lab.apply(deployment()) == "deployment.apps/web unchanged\n"
    assert lab.apply(deployment(replicas=2)) == "deployment.apps/web configured\n"


# deletion


@needs_kubectl(24)
def test_three_ways_to_delete(lab: Space) -> None:
    for name in ("back", "front", "left"):
        lab.apply(deployment(name, replicas=2))
        lab.rollout(f"deployment/{name}")
    # Background: the owner goes at once, the others follow.
    lab.kubectl("delete", "deployment", "back")
    assert "NotFound" in lab.kubectl("get", "deployment", "back", check=False)
    eventually(
        "collected", lambda: not lab.items("rs", "-l", "app=back") and not lab.items("pods", "-l", "app=back")
    )

    # Foreground: the owner stays until the last pod is gone.
    pod = lab.pods("app=front")[0]["metadata"]["name"]
    lab.kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    lab.kubectl("delete", "deployment", "front", "--cascade=foreground", "--wait=false")
    eventually("one pod is left", lambda: len(lab.items("pods", "-l", "app=front")) == 1)
    metadata = lab.get("deployment", "front")["metadata"]
    assert metadata["finalizers"] == ["foregroundDeletion"]
    assert metadata["deletionTimestamp"]
    assert lab.items("rs", "-l", "app=front")[0]["metadata"]["finalizers"] == ["foregroundDeletion"]
    lab.kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    lab.kubectl("wait", "--for=delete", "deployment/front", "--timeout=20s")
    assert not lab.items("rs", "-l", "app=front")

    # Orphan: what it owned stays and can be adopted again.
    before = {pod["metadata"]["uid"] for pod in lab.pods("app=left")}
    lab.kubectl("delete", "deployment", "left", "--cascade=orphan")
    left = lab.items("rs", "-l", "app=left")
    assert len(left) == 1
    assert "ownerReferences" not in left[0]["metadata"]
    lab.apply(deployment("left", replicas=2))
    lab.rollout("deployment/left")
    adopted = lab.items("rs", "-l", "app=left")
    assert [item["metadata"]["uid"] for item in adopted] == [left[0]["metadata"]["uid"]]
    assert adopted[0]["metadata"]["ownerReferences"][0]["name"] == "left"
    assert {pod["metadata"]["uid"] for pod in lab.pods("app=left")} == before


@needs_kubectl(24)
def test_a_full_namespace_is_emptied_before_it_goes(cluster: Cluster) -> None:
    with space(cluster) as lab:
        lab.apply(deployment(replicas=4))
        lab.apply(
            """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30888}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [example.com/hold]}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
"""
        )
        lab.rollout()
        cluster.kubectl("delete", "namespace", lab.name, "--wait=false")
        eventually("only the held one is left", lambda: not lab.items("pods") and not lab.items("secrets"))
        found = cluster.get("namespace", lab.name)
        assert found["status"]["phase"] == "Terminating"
        assert cluster.kubectl("get", "namespace", lab.name, "--no-headers").split()[1] == "Terminating"

        def said() -> dict[str, str]:
            status = cluster.get("namespace", lab.name)["status"]
            return {c["type"]: c["message"] for c in status.get("conditions", []) if c["status"] == "True"}

        assert eventually("what is left", lambda: "NamespaceFinalizersRemaining" in said() and said()) == {
            "NamespaceContentRemaining": "Some resources are remaining: configmaps. has 1 resource instances",
            "NamespaceFinalizersRemaining": (
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            ),
        }
        refused = lab.kubectl(
            "create", "-f", "-", check=False, stdin="apiVersion: v1\nkind: Secret\nmetadata: {name: late}\n"
        )
        assert (
            f'Error from server (Forbidden): error when creating "STDIN": secrets "late" is forbidden: unable to '
            f"create new content in namespace {lab.name} because it is being terminated\n"
        ) == refused
        lab.kubectl("patch", "configmap", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        cluster.kubectl("wait", "--for=delete", f"namespace/{lab.name}", "--timeout=20s")
        # Its node port is free again.
        with space(cluster) as other:
            other.apply(
                "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
                "spec: {type: NodePort, ports: [{port: 80, nodePort: 30888}]}\n"
            )


def test_watching_shows_each_step(lab: Space) -> None:
    with background(lab, "get", "pods", "-w", "--no-headers") as watching:
        lab.apply(pod("seen").replace("Seconds: 0", "Seconds: 1"))
        lab.ready("seen")
        lab.kubectl("delete", "pod", "seen")
        watching.until("the end", lambda lines: any("Terminating" in line for line in lines))
    steps = [line.split()[2] for line in watching.lines]
    changes = [step for step, before in zip(steps, ["", *steps], strict=False) if step != before]
    assert [step for step in changes if step != "ContainerCreating"][:3] == [
        "Pending",
        "Running",
        "Terminating",
    ]


@needs_kubectl(27)
def test_a_manifest_is_diffed_and_replaced(lab: Space, tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(deployment(replicas=1))
    lab.kubectl("apply", "-f", str(path))
    path.write_text(deployment(replicas=2))
    result = lab.run("diff", "-f", str(path))
    assert result.returncode == 1
    assert b"-  replicas: 1\n+  replicas: 2\n" in result.stdout
    assert lab.get("deployment", "web")["spec"]["replicas"] == 1
    assert lab.kubectl("replace", "-f", str(path)) == "deployment.apps/web replaced\n"
    assert lab.get("deployment", "web")["spec"]["replicas"] == 2
