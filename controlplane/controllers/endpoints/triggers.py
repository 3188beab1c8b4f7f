"""Wakes a loop for the Services whose endpoints a change of a Service or pod may concern."""

from __future__ import annotations

from collections.abc import Callable

from controlplane.client.controller import NamespacedName
from controlplane.client.informer import Informer
from controlplane.controllers.endpoints.membership import facts, label_pairs, selector_pair, selects
from controlplane.errors import Object
from controlplane.meta.objects import labels, name, namespace

_PODS = "labels"
_SERVICES = "selector"


class ServicePods:
    """Knows the pods of each Service, and calls `wake` with the Service's (namespace, name)."""

    def __init__(self, services: Informer, pods: Informer, wake: Callable[[NamespacedName], None]) -> None:
        self._services = services
        self._pods = pods
        self._wake = wake
        services.index_by(_SERVICES, selector_pair)
        pods.index_by(_PODS, label_pairs)
        services.on_change(self._service_changed)
        pods.on_change(self._pod_changed)

    def of(self, service: Object) -> list[Object]:
        """The pods the Service selects, by name."""
        found = [pod for pair in selector_pair(service) for pod in self._pods.lookup(_PODS, pair)]
        return sorted((pod for pod in found if selects(service, pod)), key=name)

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            self._wake((namespace(obj), name(obj)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None:
            if facts(old) == facts(new):
                return
            if labels(old) == labels(new):
                old = None
        for pod in (old, new):
            for pair in label_pairs(pod) if pod is not None else ():
                for service in self._services.lookup(_SERVICES, pair):
                    if pod is not None and selects(service, pod):
                        self._wake((namespace(service), name(service)))
