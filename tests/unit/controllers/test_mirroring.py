"""Endpoints written by hand become slices, as long as the Service selects nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.client_fake import FakeApi
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.mirroring_controller import (
    MIRROR,
    SKIP_LABEL,
    EndpointSliceMirroringController,
)
from controlplane.errors import Object
from controlplane.meta.objects import clone, labels
from controlplane.resources.catalog import ENDPOINT_SLICE, ENDPOINTS, SERVICE


def service(**spec: Any) -> Object:
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 5432, "protocol": "TCP"}], **spec},
    }


def endpoints(*ips: str, unready: tuple[str, ...] = (), **metadata: Any) -> Object:
    return {
        "metadata": {"name": "db", "namespace": "default", **metadata},
        "subsets": [
            {
                "addresses": [{"ip": ip} for ip in ips],
                "notReadyAddresses": [{"ip": ip} for ip in unready],
                "ports": [{"port": 5432, "protocol": "TCP"}],
            }
        ],
    }


@asynccontextmanager
async def controller(api: FakeApi) -> AsyncIterator[None]:
    informers = Informers(api.client())
    async with running(informers.run(), EndpointSliceMirroringController(api.client(), informers).run()):
        yield


def addresses(api: FakeApi) -> dict[str, bool]:
    return {
        endpoint["addresses"][0]: endpoint["conditions"]["ready"]
        for each in api.all(ENDPOINT_SLICE)
        for endpoint in each["endpoints"]
    }


async def test_endpoints_are_mirrored_and_followed() -> None:
    api = FakeApi()
    async with controller(api):
        await api.client().create(SERVICE, service())
        made = await api.client().create(ENDPOINTS, endpoints("192.0.2.1", unready=("192.0.2.2",)))
        await until(lambda: addresses(api) == {"192.0.2.1": True, "192.0.2.2": False})
        (mirrored,) = api.all(ENDPOINT_SLICE)
        assert labels(mirrored)["endpointslice.kubernetes.io/managed-by"] == MIRROR
        assert labels(mirrored)["kubernetes.io/service-name"] == "db"
        assert mirrored["ports"] == [{"name": "", "port": 5432, "protocol": "TCP"}]
        assert mirrored["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
        changed = clone(made)
        changed["subsets"][0]["addresses"] = [{"ip": "192.0.2.9"}]
        del changed["subsets"][0]["notReadyAddresses"]
        await api.client().update(ENDPOINTS, changed)
        await until(lambda: addresses(api) == {"192.0.2.9": True})
        await api.client().delete(ENDPOINTS, "db", "default")
        await until(lambda: addresses(api) == {})


async def test_both_families_get_slices_of_their_own() -> None:
    api = FakeApi()
    async with controller(api):
        await api.client().create(SERVICE, service())
        await api.client().create(ENDPOINTS, endpoints("192.0.2.1", "2001:db8::1"))
        await until(lambda: addresses(api) == {"192.0.2.1": True, "2001:db8::1": True})
        assert sorted(each["addressType"] for each in api.all(ENDPOINT_SLICE)) == ["IPv4", "IPv6"]


async def test_a_service_that_selects_pods_takes_its_mirror_away() -> None:
    api = FakeApi()
    async with controller(api):
        await api.client().create(ENDPOINTS, endpoints("192.0.2.1"))
        made = await api.client().create(SERVICE, service())
        await until(lambda: addresses(api) == {"192.0.2.1": True})
        changed = clone(made)
        changed["spec"]["selector"] = {"app": "db"}
        await api.client().update(SERVICE, changed)
        await until(lambda: addresses(api) == {})


async def test_endpoints_that_ask_for_it_are_left_alone() -> None:
    api = FakeApi()
    async with controller(api):
        await api.client().create(SERVICE, service())
        made = await api.client().create(ENDPOINTS, endpoints("192.0.2.1", labels={SKIP_LABEL: "true"}))
        changed = clone(made)
        changed["metadata"]["labels"] = {}
        assert api.all(ENDPOINT_SLICE) == []
        await api.client().update(ENDPOINTS, changed)
        await until(lambda: addresses(api) == {"192.0.2.1": True})
