"""On a kernel without ip_vs the IPVS mode is refused by the module's name, before anything is changed."""

from __future__ import annotations

import pytest

from netkit.kernel.errors import Unsupported
from netkit.kernel.ipvs import IPVS
from netkit.kernel.netns import HOST
from netkit.proxy.addresses import Family
from netkit.proxy.modes import Site, backends
from netkit.proxy.settings import ProxyMode, ProxySettings


@pytest.fixture(autouse=True)
def no_ip_vs() -> None:
    try:
        IPVS(HOST).close()
    except Unsupported:
        return
    pytest.skip("this kernel has ip_vs")


def test_the_mode_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        backends(ProxySettings(mode=ProxyMode.IPVS), Site("node", HOST), [Family.IPV4])
    assert "the kernel has no module ip_vs" in str(caught.value)
    assert "modprobe ip_vs" in caught.value.hint
    assert "tests/run --lane ipvs" in caught.value.hint
