"""Watches whether aggregated servers answer: the condition Available of their APIServices, and what they serve.

One task for each APIService that names a Service, asked again when the APIService, its Service or its Endpoints change,
and every now and then. The condition is written only when it says something new.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import orjson

from controlplane.apiserver.aggregation.gateway import Gateway, NotReached, NotResolved
from controlplane.apiserver.aggregation.registrations import (
    Registration,
    Registrations,
    Served,
    registration_of,
)
from controlplane.apiserver.registry import LOOPBACK_USER, Registry, WriteOptions
from controlplane.apiserver.registry.following import Following
from controlplane.errors import Conflict, NotFound, Object, StatusError
from controlplane.meta import conditions
from controlplane.meta.objects import name, namespace
from controlplane.meta.timestamps import now
from controlplane.resources.apiregistration import API_SERVICE, AVAILABLE, local_condition
from controlplane.resources.catalog import ENDPOINTS, SERVICE

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
"""Between two looks at a server that answers."""
_RETRY_SECONDS = (0.25, 30.0)
_PATIENCE_SECONDS = 5.0
"""For one answer."""
_ATTEMPTS = 5
_WRITE = WriteOptions(field_manager="kube-apiserver", user=LOOPBACK_USER)
_DISCOVERY = "application/json"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the condition is to say."""

    status: str
    reason: str
    message: str


PASSED = Finding("True", "Passed", "all checks passed")


@dataclass(slots=True)
class _Watched:
    wake: asyncio.Event
    task: asyncio.Task[None]
    spec: object
    one: Registration


class Availability:
    """See the module. `start` costs one watch until an APIService names a Service."""

    def __init__(self, registry: Registry, registrations: Registrations, gateway: Gateway) -> None:
        self._registry = registry
        self._following = Following(registry)
        self._registrations = registrations
        self._gateway = gateway
        self._watched: dict[str, _Watched] = {}
        self._follows_services = False

    def start(self) -> None:
        self._following.follow(API_SERVICE, self._changed, begun=self._begun)

    async def synced(self) -> None:
        """Return once APIServices are followed."""
        await self._following.synced()

    async def close(self) -> None:
        await self._following.close()
        tasks = [watched.task for watched in self._watched.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._watched.clear()

    # what to watch

    async def _begun(self) -> None:
        cache = await self._registry.cache(API_SERVICE)
        present = {name(stored.object) for _, stored in cache.scan()}
        for gone in self._watched.keys() - present:
            self._drop(gone)

    async def _changed(self, service: Object, gone: bool) -> None:
        one = None if gone else registration_of(service)
        watched = self._watched.get(name(service))
        if one is None:
            self._drop(name(service))
            if not gone:
                await self._tell_local(service)
        elif watched is None or watched.spec != service["spec"]:
            self._drop(name(service))
            self._watch(one, service["spec"])

    def _watch(self, one: Registration, spec: object) -> None:
        wake = asyncio.Event()
        task = asyncio.create_task(self._keep_looking(one, wake), name=f"availability of {one.name}")
        self._watched[one.name] = _Watched(wake, task, spec, one)
        if not self._follows_services:
            self._follows_services = True
            for kind in (SERVICE, ENDPOINTS):
                self._following.follow(kind, self._wake)

    def _drop(self, key: str) -> None:
        watched = self._watched.pop(key, None)
        if watched is not None:
            watched.task.cancel()
            self._registrations.forget(watched.one.group, watched.one.version)

    async def _wake(self, obj: Object, gone: bool) -> None:
        for watched in self._watched.values():
            if watched.one.service[:2] == (namespace(obj), name(obj)):
                watched.wake.set()

    async def _tell_local(self, service: Object) -> None:
        if conditions.status_of(service, AVAILABLE) != "True":
            await self._write(name(service), Finding("True", "Local", local_condition("")["message"]))

    # one server

    async def _keep_looking(self, one: Registration, wake: asyncio.Event) -> None:
        delay = _RETRY_SECONDS[0]
        while True:
            wake.clear()
            try:
                finding = await self._look(one)
                await self._write(one.name, finding)
                good = finding.status == "True"
            except StatusError as fault:
                log.warning("%s: %s; again in %.1f s", one.name, fault, delay)
                good = False
            except Exception:
                log.exception("%s: availability check failed; again in %.1f s", one.name, delay)
                good = False
            seconds = CHECK_SECONDS if good else delay
            delay = _RETRY_SECONDS[0] if good else min(delay * 2, _RETRY_SECONDS[1])
            try:
                async with asyncio.timeout(seconds):
                    await wake.wait()
                delay = _RETRY_SECONDS[0]
            except TimeoutError:
                pass  # time to look again

    async def _look(self, one: Registration) -> Finding:
        finding = await self._reachable(one)
        if finding is None:
            finding = await self._answers(one)
        if finding is not PASSED:
            self._registrations.tell_stale(one.group, one.version)
        return finding

    async def _reachable(self, one: Registration) -> Finding | None:
        """What is wrong with the Service, None when it leads somewhere."""
        space, service_name, number = one.service
        try:
            service = (await self._registry.get(SERVICE, space, service_name)).object
        except NotFound:
            return Finding("False", "ServiceNotFound", f'service/{service_name} in "{space}" is not present')
        ports = service["spec"].get("ports") or ()
        port = next((each for each in ports if each["port"] == number), None)
        if port is None:
            text = f'service/{service_name} in "{space}" is not listening on port {number}'
            return Finding("False", "ServicePortError", text)
        try:
            endpoints = (await self._registry.get(ENDPOINTS, space, service_name)).object
        except NotFound:
            text = f'cannot find endpoints for service/{service_name} in "{space}"'
            return Finding("False", "EndpointsNotFound", text)
        port_name = port.get("name", "")
        if not any(
            subset.get("addresses")
            and any(each.get("name", "") == port_name for each in subset.get("ports") or ())
            for subset in endpoints.get("subsets") or ()
        ):
            text = f'endpoints for service/{service_name} in "{space}" have no addresses with port name "{port_name}"'
            return Finding("False", "MissingEndpoints", text)
        return None

    async def _answers(self, one: Registration) -> Finding:
        finding = PASSED
        for _ in range(_ATTEMPTS):
            finding = await self._attempt(one)
            if finding is PASSED:
                break
        return finding

    async def _attempt(self, one: Registration) -> Finding:
        try:
            where = await self._gateway.locate(one)
        except NotResolved as fault:
            return _failed(str(fault))
        url = f"https://{where[0]}:{where[1]}{one.path}"
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                status, body = await self._gateway.get(one, where, one.path, _DISCOVERY)
        except NotReached as fault:
            return _failed(f'failing or missing response from {url}: Get "{url}": {fault}')
        except TimeoutError:
            return _failed(f'failing or missing response from {url}: Get "{url}": context deadline exceeded')
        if not 200 <= status < 300:
            return _failed(f"failing or missing response from {url}: bad status from {url}: {status}")
        served = Served(resources_of(body), await self._openapi_url(one, where))
        self._registrations.tell(one.group, one.version, served)
        return PASSED

    async def _openapi_url(self, one: Registration, where: tuple[str, int]) -> str:
        """Where it says its OpenAPI v3 document is, with its hash."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                status, body = await self._gateway.get(one, where, "/openapi/v3", _DISCOVERY)
            paths = orjson.loads(body)["paths"] if status == 200 else {}
            url = paths[f"apis/{one.group}/{one.version}"]["serverRelativeURL"]
        except (NotReached, TimeoutError, ValueError, KeyError, TypeError):
            return ""  # it has none: nothing that its availability hangs on
        return url if isinstance(url, str) and url.startswith("/openapi/v3/") else ""

    async def _write(self, key: str, finding: Finding) -> None:
        while True:
            try:
                service = (await self._registry.get(API_SERVICE, "", key)).object
                present = conditions.of(service, AVAILABLE) or {}
                if (present.get("status"), present.get("reason"), present.get("message")) == (
                    finding.status, finding.reason, finding.message,
                ):  # fmt: skip
                    return
                condition = {
                    "type": AVAILABLE, "status": finding.status, "lastTransitionTime": now(),
                    "reason": finding.reason, "message": finding.message,
                }  # fmt: skip
                status = {**(service.get("status") or {})}
                status["conditions"] = conditions.with_condition(status.get("conditions"), condition)
                await self._registry.update(
                    API_SERVICE, "", key, {**service, "status": status}, _WRITE, "status"
                )
            except Conflict:
                continue
            except NotFound:
                return
            log.info("%s: available: %s (%s)", key, finding.status, finding.reason)
            return


def _failed(message: str) -> Finding:
    return Finding("False", "FailedDiscoveryCheck", message)


def resources_of(body: bytes) -> tuple[Object, ...]:
    """The rows of an APIResourceList; none when it is something else. What a server says wrong is left out."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return ()
    rows = document.get("resources") if isinstance(document, dict) else None
    found = [_row(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return tuple(row for row in found if row["name"])


def _row(row: Object) -> Object:
    told: Object = {
        key: value if isinstance(value := row.get(key), str) else ""
        for key in ("name", "singularName", "kind", "group", "version")
    }
    told["namespaced"] = row.get("namespaced") is True
    for key in ("verbs", "shortNames", "categories"):
        values = row.get(key)
        told[key] = [each for each in values if isinstance(each, str)] if isinstance(values, list) else []
    return told
