"""A configuration list to begin with. Pure."""

from __future__ import annotations

import json
from typing import Any

from netkit.cni.request import OWN_IPAM, TYPE, request


def conflist(name: str, attach: str, subnet: str, version: str) -> dict[str, Any]:
    """A list with our plug-in and portmap. Raises CniError for what the plug-in would refuse."""
    own = {
        "type": TYPE, "attach": attach, "ipMasq": True, "ipam": {"type": OWN_IPAM, "subnet": subnet},
    }  # fmt: skip
    call = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/", "CNI_IFNAME": "eth0", "CNI_PATH": "/",
    }  # fmt: skip
    request(call, json.dumps({"cniVersion": version, "name": name, **own}))
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": version, "name": name, "plugins": [own, portmap]}
