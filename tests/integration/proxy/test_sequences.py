"""Random sequences of changes end in what a fresh start would write or have, in every mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from support.proxy_player import Rig, ends_like_a_fresh_start
from support.proxy_rig_iptables import IPTablesRig
from support.proxy_rig_ipvs import IPVSRig
from support.proxy_rig_nftables import NftablesRig
from support.proxy_rig_userspace import UserspaceRig
from support.proxy_sequences import PLAYS, Play, sequences

from netkit.proxy.addresses import Family
from netkit.proxy.settings import NftablesLayout

RIGS = {
    "iptables": IPTablesRig,
    "nftables": partial(NftablesRig, NftablesLayout.KUBE_PROXY),
    "compact": partial(NftablesRig, NftablesLayout.COMPACT),
    "ipvs": IPVSRig,
    "userspace": UserspaceRig,
}


@pytest.mark.parametrize("rig", RIGS.values(), ids=RIGS)
@sequences(20)
@given(play=PLAYS)
async def test_it_ends_like_a_fresh_start(rig: Callable[[Family], Rig], play: Play) -> None:
    await ends_like_a_fresh_start(rig, play)
