"""get and list of NodeMetrics and PodMetrics: what the kubelets tell, in metrics-server's words. Called by the core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from controlplane.apiserver.answers import listing, single
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.options import list_options
from controlplane.apiserver.registry.requests import ListOptions, ListResult
from controlplane.apiserver.usage import Kubelets, NodeUsage
from controlplane.errors import NotFound, Object, not_found
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import NODE, POD
from controlplane.resources.metrics import GROUP, node_metrics, pod_metrics
from controlplane.store.events import Stored


class Metrics:
    """The handlers of the group metrics.k8s.io."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def get_node(self, call: Call) -> ApiResponse:
        wanted = call.wants()
        node = (await call.registry.get(NODE, "", call.name)).object
        usage = (await self._kubelets.usage([node]))[call.name]
        found = _of_node(node, usage)
        if found is None:
            raise not_found("nodemetrics", GROUP, call.name)
        return single(call.kind, _made(found), wanted, call.include)

    async def list_nodes(self, call: Call) -> ApiResponse:
        nodes = await self._nodes(call)
        usage = await self._kubelets.usage(nodes)
        made = (_of_node(node, usage[node["metadata"]["name"]]) for node in nodes)
        return _listed(call, [found for found in made if found is not None])

    async def get_pod(self, call: Call) -> ApiResponse:
        wanted = call.wants()
        pod = (await call.registry.get(POD, call.namespace, call.name)).object
        found = None
        try:
            node = (await call.registry.get(NODE, "", pod["spec"].get("nodeName") or "")).object
        except NotFound:
            node = None
        if node is not None:
            usage = await self._kubelets.usage([node])
            found = _of_pod(pod, usage[node["metadata"]["name"]])
        if found is None:
            raise not_found("podmetrics", GROUP, f"{call.namespace}/{call.name}")
        return single(call.kind, _made(found), wanted, call.include)

    async def list_pods(self, call: Call) -> ApiResponse:
        pods = await call.registry.list(POD, call.namespace, ListOptions())
        placed = {stored.object["spec"].get("nodeName") for stored in pods.items}
        nodes = [node for node in await self._nodes(call) if node["metadata"]["name"] in placed]
        usage = await self._kubelets.usage(nodes)
        made = (
            _of_pod(stored.object, usage.get(stored.object["spec"].get("nodeName") or ""))
            for stored in pods.items
        )
        return _listed(call, [found for found in made if found is not None])

    async def _nodes(self, call: Call) -> Sequence[Object]:
        stored = await call.registry.list(NODE, "", ListOptions())
        nodes = [each.object for each in stored.items]
        self._kubelets.forget([node["metadata"]["name"] for node in nodes])
        return nodes


def _of_node(node: Object, usage: NodeUsage) -> Object | None:
    return node_metrics(node, *usage.own, now()) if usage.own is not None else None


def _of_pod(pod: Object, usage: NodeUsage | None) -> Object | None:
    metadata = pod["metadata"]
    if usage is None or (pod.get("status") or {}).get("phase") != "Running":
        return None
    found = usage.pods.get((metadata["namespace"], metadata["name"], metadata["uid"]))
    return pod_metrics(pod, found.measured, found.containers, now()) if found is not None else None


def _listed(call: Call, objects: Iterable[Object]) -> ApiResponse:
    wanted = call.wants(lists=True)
    options = list_options(call.query, call.kind)
    chosen = [each for each in objects if options.predicate is None or options.predicate(each)]
    return listing(call.kind, ListResult([_made(each) for each in chosen], 0), wanted, call.include)


def _made(obj: Object) -> Stored:
    return Stored(obj, orjson.dumps(obj), 0)
