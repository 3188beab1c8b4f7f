"""podman uses the plug-in by a configuration list that names it: a published port, a reload, a restart, removal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.cni import DEBIAN, containers, debian_plugins
from support.kernel import has, own_host

from netkit.cni.install import install
from netkit.cni.sample import conflist
from netkit.kernel import process, rtnl_read

CONFIG = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["{place}/bin", "{debian}"]
network_config_dir = "{place}/net.d"
default_network = "lab"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
"""
# In a mount namespace of its own, where control groups look as crun wants them, whatever the machine has.
SCRIPT = """
set -e
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /mnt
mount -t tmpfs none /var/lib
podman() { command podman --root /mnt/root --runroot /mnt/run --storage-driver vfs "$@"; }
answers() { curl --silent --fail --max-time 5 --retry 20 --retry-connrefused --retry-delay 1 --output /dev/null "$@"; }
trap 'podman rm --force --time 0 web >/dev/null' EXIT
podman run --detach --name web --cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
  --network lab --publish 8080:80 --rootfs /:O python3 -m http.server 80 >/dev/null
podman inspect web --format '{{json .NetworkSettings.Networks.lab}}'
answers http://127.0.0.1:8080/
podman network reload web >/dev/null
answers http://127.0.0.1:8080/
podman stop --time 0 web >/dev/null
podman start web >/dev/null
podman inspect web --format '{{json .NetworkSettings.Networks.lab}}'
answers http://127.0.0.1:8080/
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not debian_plugins(), reason="needs Debian's containernetworking-plugins"),
    pytest.mark.skipif(not has("podman", "crun", "curl"), reason="needs podman, crun and curl"),
]


@own_host
@pytest.mark.parametrize("attach", ["bridge", "ptp"])
def test_podman_attaches_containers_by_our_plugin(tmp_path: Path, attach: str) -> None:
    install(tmp_path / "bin")
    (tmp_path / "net.d").mkdir()
    # The podman of Debian 12 is older than 1.0.0 of the specification.
    listed = conflist("lab", attach, "10.22.0.0/24", "0.4.0")
    listed["plugins"][0]["dataDir"] = str(tmp_path / "data")
    (tmp_path / "net.d" / "lab.conflist").write_text(json.dumps(listed))
    (tmp_path / "containers.conf").write_text(CONFIG.format(place=tmp_path, debian=DEBIAN))
    with containers(tmp_path, "machine") as (machine,):
        process.run(["ip", "-n", "c.machine", "link", "set", "lo", "up"], check=True)
        environment = {"CONTAINERS_CONF": str(tmp_path / "containers.conf")}
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", SCRIPT]
        done = process.run(command, ns=machine, env=environment, timeout=120).check()
        first, again = (json.loads(line) for line in done.stdout.decode().splitlines())
        length = 24 if attach == "bridge" else 32
        assert (first["IPAddress"], first["IPPrefixLen"], first["Gateway"]) == (
            "10.22.0.2",
            length,
            "10.22.0.1",
        )
        assert again["IPAddress"] == "10.22.0.4"
        assert first["MacAddress"] == "0a:58:0a:16:00:02"
        for own in ("crun", "libpod"):
            # podman's and its runtime's; this /run is the test's alone.
            shutil.rmtree(f"/run/{own}")
        assert [name for name in rtnl_read.links(machine) if name.startswith("veth")] == []
        assert json.loads((tmp_path / "data" / "lab.json").read_text())["attachments"] == []
