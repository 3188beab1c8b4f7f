"""/healthz and /livez of a proxy, as balancers and probes of pods read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import orjson
from aiohttp import web

from netkit.proxy.health.proxy_health import HealthAnswer, ProxyHealth
from netkit.proxy.metrics import AgentMetrics
from netkit.proxy.servers.status import Page, json_page


def health_pages(health: ProxyHealth, counts: AgentMetrics) -> Mapping[str, Page]:
    """The pages of the health server; every probe is counted by its status."""
    return {
        "/healthz": _page(health.healthz, counts.proxy_healthz_total),
        "/livez": _page(health.livez, counts.proxy_livez_total),
    }


def _page(ask: Callable[[], HealthAnswer], counter: Counter[int]) -> Page:
    async def answer(_: web.BaseRequest) -> web.Response:
        found = ask()
        status = 200 if found.healthy else 503
        counter[status] += 1
        return json_page(orjson.dumps(found.body), status)

    return answer
