"""What a pod sees: its configuration, its files, its own system, the image it runs."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from support.cluster import Cluster, eventually
from support.space import Space, since
from support.workloads import busybox


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
  - name: conf
    configMap:
      name: settings
      items: [{key: app.conf, path: sub/app.conf}, {key: blob, path: blob}, {key: app.conf, path: app.conf}]
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
    eventually("the file says so", lambda: 'tier="db"' in lab.sh("full", "cat /etc/info/labels", *main))
    # A changed ConfigMap arrives within a minute, or with the next change of the pod; never where a
    # single file of it is mounted.
    lab.kubectl("patch", "configmap", "settings", "--type=merge", "-p", '{"data":{"app.conf":"a=2\\n"}}')

    def arrived() -> bool:
        lab.kubectl("annotate", "pod", "full", "--overwrite", f"look={time.monotonic()}")
        return lab.sh("full", "cat /etc/conf/app.conf", *main) == "a=2\n"

    eventually("the new file", arrived)
    assert lab.sh("full", "cat /etc/single.conf", *main) == "a=1\n"
    described = lab.kubectl("describe", "pod", "full")
    assert "<set to the key 'password' in secret 'keys'>" in described
    assert re.search(r"/etc/single.conf from conf \(rw,path=\"app.conf\"\)", described)


def test_a_pod_has_its_own_view_of_the_system(lab: Space) -> None:
    lab.apply(
        busybox("own", "sleep infinity")
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
    # What is edited there stays, as long as the pod does.
    lab.sh("own", "echo 192.0.2.8 edited >> /etc/hosts")
    lab.kubectl("annotate", "pod", "own", "look=again")
    # Processes, mounts, IPC and the network are the pod's own.
    processes = lab.sh("own", "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm")
    assert int(processes.split()[0]) < 8
    assert processes.split()[1] == "sh"
    links = lab.sh("own", "ls /sys/class/net").split()
    assert links == ["eth0", "lo"]
    assert address in lab.sh("own", "ip -4 -o addr show eth0")
    assert "192.0.2.8 edited" in lab.sh("own", "cat /etc/hosts")
    # What is written to / stays in the pod, and goes with it.
    mark = f"/etc/mark-{lab.name}"
    lab.sh("own", f"echo x > {mark}; echo x > /root/mark; echo x > /var/mark; rm -rf /usr/share/doc")
    assert not os.path.exists(mark)
    assert not os.path.exists("/root/mark")
    assert os.path.isdir("/usr/share/doc")
    assert lab.sh("own", f"cat {mark}") == "x\n"
    # A second pod does not see it, nor the first one's processes.
    lab.apply(busybox("other", "sleep infinity"))
    lab.ready("other")
    assert "No such file" in lab.kubectl("exec", "other", "--", "cat", mark, check=False)
    refused = lab.kubectl("exec", "own", "--", "ip", "link", "set", "eth0", "down", check=False)
    assert "Operation not permitted" in refused


def test_a_pod_on_the_nodes_network(lab: Space) -> None:
    lab.apply(busybox("host", "busybox httpd -f -p 8099") + "  hostNetwork: true\n")
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
        busybox("user", "id; sleep infinity", more="securityContext: {runAsUser: 1000, runAsGroup: 3000}")
        + "  securityContext: {fsGroup: 2000, supplementalGroups: [4000]}\n"
    )
    lab.ready("user")
    assert lab.sh("user", "id -u; id -g; id -G").split() == ["1000", "3000", "3000", "2000", "4000"]
    assert "Permission denied" in lab.kubectl("exec", "user", "--", "touch", "/etc/x", check=False)


def test_a_read_only_root_leaves_only_volumes_to_write(lab: Space) -> None:
    lab.apply(
        busybox(
            "sealed",
            "sleep infinity",
            more="""securityContext: {readOnlyRootFilesystem: true}
env: [{name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
volumeMounts:
- {name: tmp, mountPath: /tmp}
- {name: tmp, mountPath: /var/cache/own, subPathExpr: $(WHO)}""",
        )
        + "  volumes: [{name: tmp, emptyDir: {}}]\n"
    )
    lab.ready("sealed")
    for path in ("/etc/x", "/run/x", "/x"):
        refused = lab.kubectl("exec", "sealed", "--", "touch", path, check=False)
        assert "Read-only file system" in refused
    assert (
        lab.sh(
            "sealed",
            "echo a > /tmp/x; echo b > /var/cache/own/y; cat /tmp/sealed/y; test -w /dev/null && echo w",
        )
        == "b\nw\n"
    )


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
        "--cmd", "echo $GREETING from $PWD; sleep 1000", "--env", "GREETING=hello", "--workdir", "/etc",
        "-p", cluster.name,
    )  # fmt: skip
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: tiny}\n"
        "spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: tiny}]}\n"
    )
    lab.ready("tiny")
    eventually("its greeting", lambda: lab.kubectl("logs", "tiny") == "hello from /etc\n")
    assert lab.sh("tiny", "cat os-release; ls /usr 2>&1 | cat; touch /made").startswith("ID=tiny\n")
    assert not (root / "made").exists()
    assert not (root / "proc").exists()
    assert "search" in lab.sh("tiny", "cat /etc/resolv.conf")
