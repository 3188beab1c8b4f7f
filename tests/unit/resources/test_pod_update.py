import pytest
from support.resources import container, pod, update_faults

from controlplane.resources.catalog import POD

TEXT = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
)
NOT_READY = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (pod(), pod()),
        (pod("web", container(image="nginx:2")), pod()),
        (
            pod("web", container(), initContainers=[container("i", image="busybox:2")]),
            pod("web", container(), initContainers=[container("i")]),
        ),
        (pod(tolerations=[{"operator": "Exists"}]), pod()),
        (
            pod(tolerations=[{**NOT_READY, "tolerationSeconds": 5}]),
            pod(tolerations=[{**NOT_READY, "tolerationSeconds": 300}]),
        ),
        (pod(activeDeadlineSeconds=5), pod()),
        (pod(activeDeadlineSeconds=5), pod(activeDeadlineSeconds=6)),
        (pod(terminationGracePeriodSeconds=1), pod(terminationGracePeriodSeconds=-1)),
        (pod(nodeSelector={"a": "b"}), pod(schedulingGates=[{"name": "g"}])),
        (pod(volumes=[]), pod()),
    ],
)
def test_what_may_change(new, old):
    assert update_faults(POD, new, old) == []


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (
            pod("web", container(), container("b")),
            pod(),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (pod(nodeName="n2"), pod(nodeName="n1"), [TEXT + '  spec.nodeName: "n1" -> "n2"\n']),
        (
            pod("web", container(command=["x"])),
            pod(),
            [TEXT + '  spec.containers[0].command: null -> []string{"x"}\n'],
        ),
        (
            pod("web", container(env=[{"name": "A", "value": "2"}])),
            pod("web", container(env=[{"name": "A", "value": "1"}])),
            [TEXT + '  spec.containers[0].env[0].value: "1" -> "2"\n'],
        ),
        (
            pod(),
            pod(tolerations=[{"operator": "Exists"}]),
            [
                "spec.tolerations: Forbidden: existing toleration can not be modified except its "
                "tolerationSeconds"
            ],
        ),
        (
            pod(activeDeadlineSeconds=7),
            pod(activeDeadlineSeconds=6),
            [
                "spec.activeDeadlineSeconds: Invalid value: 7: must be less than or equal to previous value"
            ],
        ),
        (
            pod(schedulingGates=[{"name": "g"}]),
            pod(),
            [
                "spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"
            ],
        ),
    ],
)  # fmt: skip
def test_what_may_not(new, old, expected):
    assert update_faults(POD, new, old) == expected


def test_the_deadline_may_not_go():
    (fault,) = update_faults(POD, pod(), pod(activeDeadlineSeconds=6))
    assert fault.endswith("must not update from a positive integer to nil value")
