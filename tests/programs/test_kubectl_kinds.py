"""The real kubectl with the kinds of networking, storage, scheduling and the API itself."""

from __future__ import annotations

import pytest
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

pytestmark = [pytest.mark.kubectl, needs_kubectl(32)]

OBJECTS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: example.com/nginx, parameters: {apiGroup: k8s.example.com, kind: P, name: x}}
---
apiVersion: networking.k8s.io/v1beta1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.200.0.0/24]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}], clusterIP: 10.200.0.7}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: example.com/disk
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}, storageClassName: fast}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: pvc}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: kata}
handler: kata
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: d.example.com}
spec: {}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: n1}
spec: {drivers: []}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: va}
spec: {attacher: d.example.com, nodeName: n1, source: {persistentVolumeName: pv}}
"""

WIDE = {
    "netpol": ["NAME POD-SELECTOR AGE", "np app=web"],
    "ing": ["NAME CLASS HOSTS ADDRESS PORTS AGE", "web nginx foo.com,bar.com 80, 443"],
    "ingressclass": ["NAME CONTROLLER PARAMETERS AGE", "nginx example.com/nginx P.k8s.example.com/x"],
    "servicecidr": ["NAME CIDRS AGE", "kubernetes 10.96.0.0/16", "more 10.200.0.0/24"],
    "ip": ["NAME PARENTREF", "10.200.0.7 services/default/web", "10.96.0.1 services/default/kubernetes"],
    "sc": [
        "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE",
        "fast (default) example.com/disk Delete Immediate false",
    ],
    "pv": [
        "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE "
        "VOLUMEMODE",
        "pv 1Gi RWO Retain Pending fast <unset>",
    ],
    "pvc": [
        "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE VOLUMEMODE",
        "pvc Pending fast <unset>",
    ],
    "pc": [
        "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY",
        "high 1000 true",
        "system-cluster-critical 2000000000 false",
        "system-node-critical 2000001000 false",
    ],
    "runtimeclass": ["NAME HANDLER AGE", "kata kata"],
    "csidriver": [
        "NAME ATTACHREQUIRED PODINFOONMOUNT STORAGECAPACITY TOKENREQUESTS REQUIRESREPUBLISH MODES AGE",
        "d.example.com true false false <unset> false Persistent",
    ],
    "csinode": ["NAME DRIVERS AGE", "n1 0"],
    "volumeattachment": ["NAME ATTACHER PV NODE ATTACHED AGE", "va d.example.com pv n1 false"],
    "apiservice": ["NAME SERVICE AVAILABLE AGE", "v1. Local True", "v1.apps Local True"],
    "flowschema": [
        "NAME PRIORITYLEVEL MATCHINGPRECEDENCE DISTINGUISHERMETHOD AGE MISSINGPL",
        "catch-all catch-all 10000 ByUser",
        "exempt exempt 1 <none>",
    ],
    "prioritylevelconfiguration": [
        "NAME TYPE NOMINALCONCURRENCYSHARES QUEUES HANDSIZE QUEUELENGTHLIMIT AGE",
        "exempt Exempt <none> <none> <none> <none>",
        "workload-low Limited 100 128 6 50",
    ],
    "cs": ["NAME STATUS MESSAGE ERROR", "etcd-0 Healthy ok"],
}

DESCRIBED = {
    "netpol/np": [
        "PodSelector:     app=web",
        "CIDR: 10.0.0.0/8",
        "Except: 10.1.0.0/16",
        "Policy Types: Ingress",
    ],
    "ing/web": ["Ingress Class:    nginx", "secret terminates bar.com", "web:80 (<none>)"],
    "ingressclass/nginx": ["Controller:   example.com/nginx", "APIGroup:  k8s.example.com"],
    "servicecidr/more": ["CIDRs:        10.200.0.0/24"],
    "ipaddress/10.200.0.7": ["Parent Reference:", "Resource:   services"],
    "sc/fast": ["IsDefaultClass:  Yes", "ReclaimPolicy:         Delete"],
    "pv/pv": ["Finalizers:      [kubernetes.io/pv-protection]", "Type:          HostPath"],
    "pvc/pvc": [
        "StorageClass:  fast",
        "Finalizers:    [kubernetes.io/pvc-protection]",
        "Used By:       <none>",
    ],
    "pc/high": ["Value:             1000", "PreemptionPolicy:  PreemptLowerPriority", "Description:       d"],
    "runtimeclass/kata": ["Handler:      kata"],
    "csinode/n1": ["Drivers:"],
    "volumeattachment/va": ["Persistent Volume Name:  pv"],
    "apiservice/v1.apps": ["Local APIServices are always available"],
    "flowschema/exempt": ["Matching Precedence:  1", "system:masters"],
}


async def made(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("objects.yaml", OBJECTS))
    await kubectl(
        "create", "ingress", "web", "--rule=foo.com/*=web:80", "--rule=bar.com/x=web:http,tls=secret"
    )
    await kubectl("create", "priorityclass", "high", "--value=1000", "--global-default", "--description=d")


async def test_tables(kubectl: Kubectl) -> None:
    await made(kubectl)
    for resource, expected in WIDE.items():
        lines = [
            " ".join(line.split()) for line in (await kubectl("get", resource, "-o", "wide")).splitlines()
        ]
        assert lines[0] == expected[0]
        for row in expected[1:]:
            assert any(line.startswith(row) for line in lines[1:]), (resource, row, lines)


async def test_descriptions(kubectl: Kubectl) -> None:
    await made(kubectl)
    for what, expected in DESCRIBED.items():
        text = await kubectl("describe", what)
        assert not [part for part in expected if part not in text], (what, text)


async def test_apply_again_changes_nothing_and_deletion_frees(kubectl: Kubectl) -> None:
    await made(kubectl)
    again = await kubectl("apply", "-f", str(kubectl.directory / "objects.yaml"))
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}
    await kubectl("delete", "service", "web")
    assert "10.200.0.7" not in await kubectl("get", "ipaddresses")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("create", "priorityclass", "x", "--value=1000000001"),
            'PriorityClass.scheduling.k8s.io "x" is invalid: value: Forbidden: maximum allowed value of a user '
            "defined priority is 1000000000",
        ),
        (
            ("delete", "priorityclass", "system-node-critical"),
            'priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: this is a system priority class '
            "and cannot be deleted",
        ),
        (
            ("run", "p", "--image=i", '--overrides={"spec":{"priorityClassName":"none"}}'),
            'pods "p" is forbidden: no PriorityClass with name none was found',
        ),
        (
            ("create", "ingress", "x", "--rule=1.2.3.4/=web:80"),
            'Ingress.networking.k8s.io "x" is invalid: spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS '
            "name, not an IP address",
        ),
    ],
)
async def test_refusals(kubectl: Kubectl, arguments: tuple[str, ...], message: str) -> None:
    result = await kubectl.run(*arguments)
    assert result.code == 1
    assert message in result.err


async def test_warnings(kubectl: Kubectl) -> None:
    annotation = "--annotation=kubernetes.io/ingress.class=nginx"
    result = await kubectl.run("create", "ingress", "old", "--rule=a.b/=web:80", annotation)
    assert result.err == (
        "Warning: annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' "
        "instead\n"
    )
    volume = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: old, annotations: {volume.beta.kubernetes.io/storage-class: x}}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], rbd: {monitors: [m], image: i}}
"""
    result = await kubectl.run("create", "-f", kubectl.write("old.yaml", volume))
    assert result.err.splitlines() == [
        "Warning: metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "
        '"storageClassName" attribute instead',
        "Warning: spec.rbd: deprecated in v1.28, non-functional in v1.31+",
    ]
    service = """
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, sessionAffinity: ClientIP, externalIPs: [1.2.3.4], ports: [{port: 80}]}
"""
    result = await kubectl.run("create", "-f", kubectl.write("headless.yaml", service))
    assert result.err.splitlines() == [
        'Warning: spec.externalIPs is ignored when spec.clusterIP is "None"',
        "Warning: spec.SessionAffinity is ignored for headless services",
    ]


async def test_explain(kubectl: Kubectl) -> None:
    for path, part in (
        ("ingress.spec.rules.http.paths.pathType", "Exact"),
        ("networkpolicy.spec.ingress.from", "NetworkPolicyPeer"),
        ("pvc.spec.resources", "VolumeResourceRequirements"),
        ("priorityclass.value", "integer"),
        ("apiservice.spec.groupPriorityMinimum", "GroupPriorityMinimum"),
    ):
        assert part in await kubectl("explain", path)
