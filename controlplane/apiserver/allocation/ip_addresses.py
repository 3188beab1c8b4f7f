"""The IPAddress objects that say which Service has which address, as writes of the store. Pure.

They are written in the same commit as the Service, so that neither is ever there without the other.
"""

from __future__ import annotations

import uuid

from controlplane.apiserver.allocation.cluster_ips import IPAddress
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.timestamps import now
from controlplane.resources.networking.service_cidr import (
    ALLOCATOR,
    FAMILY_LABEL,
    IP_ADDRESS,
    MANAGED_BY_LABEL,
)
from controlplane.store.events import encoded
from controlplane.store.protocol import Delete, Put


def object_of(address: IPAddress, namespace: str, service: str) -> Object:
    """The IPAddress of that address, held by a Service."""
    return {
        "apiVersion": IP_ADDRESS.api_version,
        "kind": IP_ADDRESS.kind,
        "metadata": {
            "name": str(address),
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now(),
            "labels": {FAMILY_LABEL: f"IPv{address.version}", MANAGED_BY_LABEL: ALLOCATOR},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": service}},
    }


def written(address: IPAddress, namespace: str, service: str) -> Put:
    return Put(_key(str(address)), encoded(object_of(address, namespace, service)))


def removed(address: IPAddress | str) -> Delete:
    """An object that is not there is no fault."""
    return Delete(_key(str(address)))


def is_managed(obj: Object) -> bool:
    """Whether the server made it for a Service, so that it may take it away."""
    labels = dig(obj, "metadata", "labels", default={})
    return (
        labels.get(MANAGED_BY_LABEL) == ALLOCATOR
        and dig(obj, "spec", "parentRef", "resource") == "services"
        and not dig(obj, "spec", "parentRef", "group")
    )


def _key(name: str) -> str:
    return IP_ADDRESS.key("", name)
