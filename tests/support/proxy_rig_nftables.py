"""What sequences of changes play on in nftables mode, and the table they end in, in either layout."""

from __future__ import annotations

import errno
from typing import Any

from support.proxy import FakeNodeKernel
from support.proxy_modes import nftables_settings, table_content
from support.proxy_player import ADDRESSES, Rig
from support.proxy_sequences import HERE

from netkit.kernel.nft.fake import FakeNftTable
from netkit.kernel.nft.wire import NFPROTO_IPV4, NFPROTO_IPV6
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.nftables.backend import NftablesBackend
from netkit.proxy.settings import NftablesLayout, ProxySettings


class NftablesRig(Rig):
    """The nftables mode on a fake kernel that refuses what the real one refuses, and a clock of its own."""

    def __init__(self, layout: NftablesLayout, family: Family) -> None:
        self.family = family
        self.layout = layout
        self.table = FakeNftTable(NFPROTO_IPV4 if family is Family.IPV4 else NFPROTO_IPV6)
        self.now = 1000.0

    async def start(self, settings: ProxySettings) -> NftablesBackend:
        settings = nftables_settings(settings, self.layout)
        kernel = FakeNodeKernel(local=ADDRESSES)
        return NftablesBackend(HERE, self.family, settings, self.table, kernel, lambda: self.now)

    def fail(self, place: int | None) -> None:
        self.table.refuse, self.table.refuse_after = (0, 0) if place is None else (errno.ENOMEM, place)

    async def minute(self, backend: Backend) -> None:
        self.now += 60

    async def content(self) -> Any:
        return table_content(self.table.contents)
