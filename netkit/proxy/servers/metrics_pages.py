"""What the metrics server of a proxy shows: counters, mode, configuration, and with profiling what the process does."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from netkit.proxy.metrics import AgentMetrics
from netkit.proxy.servers.http import NO_SNIFF
from netkit.proxy.servers.profiling import profiling_pages
from netkit.proxy.servers.status import Page, json_page, plain

CONFIG_GROUP: Final = "kubeproxy.config.k8s.io"


def metrics_pages(
    counts: AgentMetrics, configuration: Mapping[str, Any], *, profiling: bool = False
) -> Mapping[str, Page]:
    """The pages by path. `configuration` is what /configz shows."""
    shown = orjson.dumps({CONFIG_GROUP: dict(configuration)})
    pages: dict[str, Page] = {
        "/healthz": functools.partial(_text, "ok"),
        "/proxyMode": functools.partial(_text, str(counts.mode)),
        "/metrics": functools.partial(_metrics, counts),
        "/configz": functools.partial(_document, shown),
    }
    if profiling:
        pages.update(profiling_pages())
    return pages


async def _text(text: str, _: web.BaseRequest) -> web.Response:
    return plain(text)


async def _document(shown: bytes, _: web.BaseRequest) -> web.Response:
    return json_page(shown)


async def _metrics(counts: AgentMetrics, request: web.BaseRequest) -> web.Response:
    from netkit.proxy.servers.exposition import expose

    body, content_type = expose(counts, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type, **NO_SNIFF})
