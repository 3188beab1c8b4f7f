"""Lifecycle hooks (postStart, preStop) of a container, carried out. Used by `worker` and `container_start`."""

from __future__ import annotations

import asyncio

from controlplane.errors import Object
from controlplane.meta import pods
from netkit.node import probe_checks
from netkit.node.probe_checks import Outcome
from netkit.node.settings import NodeContext


async def run_hook(
    context: NodeContext, container: Object, container_id: str, address: str, handler: Object, timeout: float
) -> Outcome:
    """Run one handler for at most `timeout` seconds. A failure's text is for an event."""
    if "exec" in handler:
        command = [str(word) for word in handler["exec"].get("command") or ()]
        return await probe_checks.execute(context.runtime, container_id, command, timeout)
    if "sleep" in handler:
        await asyncio.sleep(min(float(handler["sleep"].get("seconds") or 0), timeout))
        return Outcome(True)
    action = handler.get("httpGet") or handler.get("tcpSocket")
    if action is None:
        return Outcome(False, "this kind of hook is not supported")
    port = pods.find_port({"spec": {"containers": [container]}}, action.get("port", 0), "TCP")
    if port is None:
        return Outcome(False, f"couldn't find port: {action.get('port')} in container")
    if "tcpSocket" in handler:
        return await probe_checks.tcp_connect(context.settings.node_ns, address, port, timeout)
    return await probe_checks.http_get(context.settings.node_ns, address, port, action, timeout)
