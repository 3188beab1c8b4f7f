"""Which conntrack settings are made, and what becomes of those that cannot be."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field

import pytest

from netkit.kernel.errors import KernelError
from netkit.proxy.conntrack_sysctls import ConntrackSysctls, wanted_sysctls
from netkit.proxy.settings import ConntrackSettings


@dataclass
class FakeKernel:
    """A kernel whose settings are a dictionary; `refuse` maps names to the errno of a write."""

    values: dict[str, int] = field(
        default_factory=lambda: {
            "max": 262144,
            "tcp_timeout_established": 432000,
            "tcp_timeout_close_wait": 60,
            "tcp_be_liberal": 0,
            "udp_timeout": 30,
            "udp_timeout_stream": 120,
        }
    )
    buckets: int = 65536
    refuse: dict[str, int] = field(default_factory=dict)
    written: list[tuple[str, int]] = field(default_factory=list)

    def read(self, name: str) -> int:
        return self.values[name]

    def write(self, name: str, value: int) -> None:
        self._allow(name)
        self.values[name] = value
        self.written.append((name, value))

    def hash_size(self) -> int:
        return self.buckets

    def set_hash_size(self, buckets: int) -> None:
        self._allow("hash size")
        self.buckets = buckets
        self.written.append(("hash size", buckets))

    def _allow(self, name: str) -> None:
        if name in self.refuse:
            raise KernelError(f"write {name}", errno=self.refuse[name])


async def prepared(kernel: FakeKernel, settings: ConntrackSettings, cores: int = 16) -> list[tuple[str, str]]:
    events: list[tuple[str, str]] = []
    sysctls = ConntrackSysctls("here", settings, kernel, lambda *event: events.append(event), cores)
    await sysctls.prepare()
    return events


@pytest.mark.parametrize(
    ("settings", "cores", "expected"),
    [
        (ConntrackSettings(), 2, 131072),
        (ConntrackSettings(), 16, 524288),
        (ConntrackSettings(max_per_core=10, minimum=5), 2, 20),
        (ConntrackSettings(max_per_core=10, minimum=0), 2, 20),
        (ConntrackSettings(max_per_core=0), 16, None),
    ],
)
def test_the_limit_grows_with_the_cores(
    settings: ConntrackSettings, cores: int, expected: int | None
) -> None:
    assert wanted_sysctls(settings, cores).get("max") == expected


async def test_defaults_are_kube_proxys() -> None:
    kernel = FakeKernel()
    assert await prepared(kernel, ConntrackSettings()) == []
    assert kernel.written == [
        ("max", 524288),
        ("hash size", 131072),
        ("tcp_timeout_established", 86400),
        ("tcp_timeout_close_wait", 3600),
    ]


async def test_all_settings() -> None:
    kernel = FakeKernel()
    settings = ConntrackSettings(0, 0, 100, 200, True, 300, 400)
    await prepared(kernel, settings)
    assert kernel.values == {
        "max": 262144,
        "tcp_timeout_established": 100,
        "tcp_timeout_close_wait": 200,
        "tcp_be_liberal": 1,
        "udp_timeout": 300,
        "udp_timeout_stream": 400,
    }
    assert kernel.buckets == 65536


async def test_zero_leaves_alone_and_liberal_is_never_taken_back() -> None:
    kernel = FakeKernel()
    kernel.values["tcp_be_liberal"] = 1
    await prepared(kernel, ConntrackSettings(0, 0, 0, 0, False, 0, 0))
    assert kernel.written == []


async def test_what_is_so_already_is_not_written() -> None:
    kernel = FakeKernel()
    await prepared(kernel, ConntrackSettings())
    kernel.written.clear()
    await prepared(kernel, ConntrackSettings())
    assert kernel.written == []


async def test_higher_values_of_others_are_replaced_but_a_larger_table_stays() -> None:
    kernel = FakeKernel()
    kernel.values["max"] = 10_000_000
    kernel.buckets = 2_500_000
    await prepared(kernel, ConntrackSettings())
    assert kernel.values["max"] == 524288
    assert kernel.buckets == 2_500_000


async def test_a_limit_that_belongs_to_the_machine_is_left_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = FakeKernel(refuse={"max": errno.EACCES})
    with caplog.at_level(logging.INFO):
        assert await prepared(kernel, ConntrackSettings()) == []
    assert [record.message for record in caplog.records if "nf_conntrack_max" in record.message] == [
        "here: nf_conntrack_max stays 262144: it belongs to the machine, not to this namespace"
    ]
    assert kernel.values["tcp_timeout_established"] == 86400


async def test_a_read_only_file_system_is_an_event_and_the_rest_is_tried() -> None:
    kernel = FakeKernel(refuse={"hash size": errno.EROFS})
    ((reason, message),) = await prepared(kernel, ConntrackSettings())
    assert reason == "readOnlySysFS"
    assert "hash size" in message
    assert kernel.values["tcp_timeout_established"] == 86400


async def test_other_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    kernel = FakeKernel(refuse={"udp_timeout": errno.EINVAL})
    assert await prepared(kernel, ConntrackSettings(udp_timeout=5)) == []
    assert "udp_timeout" in caplog.text
