"""Jobs on a whole cluster: pods that end, indexes, failures, budgets that hold back a drain."""

from __future__ import annotations

from support.cluster import eventually, needs_kubectl
from support.space import Space
from support.workloads import deployment


def job(name: str, script: str, more: str = "", policy: str = "Never") -> str:
    """A Job of busybox pods; `more` are further fields of its spec, one on each line."""
    fields = "".join(f"\n  {line}" for line in more.splitlines())
    return f"""
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:{fields}
  template:
    spec:
      restartPolicy: {policy}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sh, -c, '{script}']
"""


def finished(lab: Space, name: str, condition: str = "complete") -> None:
    lab.kubectl("wait", f"--for=condition={condition}", f"job/{name}", "--timeout=60s")


@needs_kubectl(24)
def test_a_job_runs_to_completion(lab: Space) -> None:
    lab.apply(job("work", "echo done by $HOSTNAME", "completions: 3\nparallelism: 2"))
    finished(lab, "work")
    status = lab.get("job", "work")["status"]
    assert (status["succeeded"], status["ready"], status["terminating"]) == (3, 0, 0)
    assert lab.row("job", "work")[:3] == ["work", "Complete", "3/3"]
    pods = lab.items("pods", "-l", "batch.kubernetes.io/job-name=work")
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"] * 3
    assert all("finalizers" not in pod["metadata"] for pod in pods)
    assert "done by work-" in lab.kubectl("logs", "job/work")
    assert lab.event("work", "Completed") == "Job completed"
    lab.kubectl("delete", "job", "work")
    eventually("its pods are gone", lambda: not lab.items("pods", "-l", "job-name=work"))


@needs_kubectl(24)
def test_indexed_pods_find_their_share(lab: Space) -> None:
    script = "echo $JOB_COMPLETION_INDEX is $(hostname)"
    lab.apply(job("shares", script, "completions: 3\nparallelism: 3\ncompletionMode: Indexed"))
    finished(lab, "shares")
    assert lab.get("job", "shares")["status"]["completedIndexes"] == "0-2"
    said = sorted(lab.kubectl("logs", "-l", "job-name=shares").split("\n"))
    assert [line for line in said if line] == [f"{index} is shares-{index}" for index in range(3)]


@needs_kubectl(24)
def test_a_job_that_gives_up(lab: Space) -> None:
    lab.apply(job("bad", "exit 3", "backoffLimit: 0"))
    finished(lab, "bad", "failed")
    assert lab.row("job", "bad")[:3] == ["bad", "Failed", "0/1"]
    assert lab.event("bad", "BackoffLimitExceeded") == "Job has reached the specified backoff limit"
    policy = """backoffLimit: 4
podFailurePolicy:
  rules:
  - {action: FailJob, onExitCodes: {operator: In, values: [3]}}"""
    lab.apply(job("worse", "exit 3", policy))
    finished(lab, "worse", "failed")
    conditions = lab.get("job", "worse")["status"]["conditions"]
    assert [condition["type"] for condition in conditions] == ["FailureTarget", "Failed"]
    assert "failed with exit code 3 matching FailJob rule at index 0" in conditions[-1]["message"]


@needs_kubectl(24)
def test_suspend_and_resume(lab: Space) -> None:
    lab.apply(job("rest", "sleep 600", "suspend: true"))
    eventually("it is suspended", lambda: lab.row("job", "rest")[1] == "Suspended")
    lab.kubectl("patch", "job", "rest", "-p", '{"spec":{"suspend":false}}')
    eventually("it runs", lambda: lab.get("job", "rest")["status"].get("ready") == 1)
    lab.kubectl("patch", "job", "rest", "-p", '{"spec":{"suspend":true}}')
    eventually("its pod is gone", lambda: not lab.items("pods", "-l", "job-name=rest"))
    assert "failed" not in lab.get("job", "rest")["status"]


@needs_kubectl(24)
def test_a_drain_keeps_to_the_budget(lab: Space) -> None:
    cluster = lab.cluster
    lab.apply(deployment(replicas=3, pod="nodeSelector: {kubernetes.io/hostname: node2}"))
    lab.rollout()
    lab.kubectl("create", "poddisruptionbudget", "keep", "--selector=app=web", "--min-available=3")
    eventually("counted", lambda: lab.get("pdb", "keep")["status"].get("currentHealthy") == 3)
    try:
        said = cluster.kubectl("drain", "node2", "--timeout=4s", check=False)
        assert "Cannot evict pod as it would violate the pod's disruption budget." in said
        assert len(lab.pods()) == 3
        lab.kubectl("patch", "pdb", "keep", "--type=merge", "-p", '{"spec":{"minAvailable":0}}')
        eventually("allowed", lambda: lab.get("pdb", "keep")["status"]["disruptionsAllowed"] == 3)
        assert "node/node2 drained" in cluster.kubectl("drain", "node2", "--timeout=40s")
    finally:
        cluster.kubectl("uncordon", "node2")
