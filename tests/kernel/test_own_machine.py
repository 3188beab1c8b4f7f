"""A worker's machine: what is beside is not seen in it, what is left in it is, and nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.host import left_overs
from support.kernel import requires_root, wait_for

from netkit.kernel.process import start_time

OWN_MACHINE = Path(__file__).resolve().parents[1] / "support" / "own_machine.py"

pytestmark = [requires_root, pytest.mark.root]

SEE = """
import os, subprocess
links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
print(len(links.splitlines()), sorted(os.listdir("/run")), os.listdir("/var/lib"))
print(len([entry for entry in os.listdir("/proc") if entry.isdigit()]))
for name in ("/etc/left-by-a-test", "/root/left-by-a-test", "/run/left-by-a-test", "/var/lib/left-by-a-test"):
    open(name, "w").close()
"""

LEAKS = {
    "namespace": "subprocess.run(['ip', 'netns', 'add', 'left'], check=True)",
    "link": "subprocess.run(['ip', 'link', 'add', 'left', 'type', 'veth', 'peer', 'right'], check=True)",
    "process": "subprocess.Popen(['bash', '-c', 'echo nk:left > /proc/self/comm; read'], stdin=subprocess.PIPE)",
    "mount": "os.mkdir('/run/mount/left'); subprocess.run(['mount', '-t', 'tmpfs', 'x', '/run/mount/left'])",
    "state": "os.makedirs('/var/lib/netkit/left')",
    "file": "open('/root/left', 'w').close()",
    "sysctl": "open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')",
    "nothing": "pass",
}

COMPARE = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from support.host import host_network, left_overs
before = left_overs(), host_network()
{leak}
time.sleep(0.3 if "Popen" in {leak!r} else 0)
sys.exit((left_overs(), host_network()) != before)
"""


def own_machine(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(OWN_MACHINE), "-c", program, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_it_is_empty_and_what_is_done_there_stays_there() -> None:
    before = left_overs().files
    seen = own_machine(SEE)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.splitlines() == ["1 ['mount', 'own-machine', 'xtables.lock'] []", "2"]
    assert not [name for name in left_overs().files - before if "left-by-a-test" in name]


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_caught(what: str) -> None:
    tests = str(OWN_MACHINE.parents[1])
    done = own_machine(COMPARE.format(leak=LEAKS[what]), tests)
    assert (done.returncode, done.stderr) == (0 if what == "nothing" else 1, "")


def test_nothing_outlives_it() -> None:
    machine = subprocess.Popen(
        [sys.executable, "-P", str(OWN_MACHINE), "-c",
         "import subprocess as s, time; s.Popen(['setsid', 'sleep', '54321']); print(1, flush=True); time.sleep(999)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert machine.stdout is not None
    machine.stdout.readline()
    inside = wait_for(lambda: _below(machine.pid))
    assert len(inside) >= 3
    os.kill(machine.pid, signal.SIGKILL)
    machine.wait()
    machine.stdout.close()
    assert wait_for(lambda: not any(map(start_time, inside)), 60)


def _below(pid: int) -> list[int]:
    """All descendants of a process, or [] until the sleeper is among them."""
    found, looked = [pid], 0
    while looked < len(found):
        children = Path(f"/proc/{found[looked]}/task/{found[looked]}/children").read_text().split()
        found += map(int, children)
        looked += 1
    names = {Path(f"/proc/{each}/comm").read_text().strip() for each in found}
    return found[1:] if "sleep" in names else []
