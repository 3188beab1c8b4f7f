"""What differs between the two kinds that keep a number of pods. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controlplane.errors import Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig
from controlplane.resources.catalog import REPLICA_SET, REPLICATION_CONTROLLER
from controlplane.resources.kind import Kind


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kind; `component` is who its events come from, `selector(obj)` the pods it counts as its own."""

    kind: Kind
    component: str
    selector: Callable[[Object], LabelSelector]


def _label_selector(replica_set: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(replica_set, "spec", "selector"))


def _plain_map(controller: Object) -> LabelSelector:
    return LabelSelector.from_map(dig(controller, "spec", "selector"))


REPLICA_SETS = Flavour(REPLICA_SET, "replicaset-controller", _label_selector)
REPLICATION_CONTROLLERS = Flavour(REPLICATION_CONTROLLER, "replication-controller", _plain_map)
