"""Whether the way through the rules agrees with the model, whoever calls what under whichever policy."""

from __future__ import annotations

import itertools
from typing import Any

from support.explained import explaining
from support.proxy import draining, endpoint, service, slice_of, unready

from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.explain.explanation import Explanation, Outcome
from netkit.proxy.explain.steps import Action
from netkit.proxy.explain.target import To
from netkit.proxy.settings import NftablesLayout, ProxyMode

HERE, THERE = endpoint("10.244.0.5", "here"), endpoint("10.244.1.6", "there")
MODES: dict[str, dict[str, Any]] = {
    **{mode.value: {"mode": mode} for mode in ProxyMode},
    "compact": {"mode": ProxyMode.NFTABLES, "nftables_layout": NftablesLayout.COMPACT},
}
BALANCED = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": 30080}],
    "externalIPs": ["1.2.3.4"],
    "ingress": [{"ip": "5.6.7.8"}],
}
ENDPOINTS: dict[str, list[Any]] = {
    "both": [HERE, THERE],
    "here": [HERE],
    "there": [THERE],
    "unready": [unready("10.244.0.5", "here")],
    "draining": [draining("10.244.0.5", "here"), THERE],
    "none": [],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "": {},
    "all": {"masquerade_all": True},
    "blind": {"cluster_cidr": ""},
    "bridge": {"detect_local_mode": DetectLocalMode.BRIDGE_INTERFACE, "bridge_interface": "cni0"},
}


async def rules_and_model_agree(mode: str, to: To, endpoints: str, settings: str) -> None:
    """Asks from pods, the node and outside under either policy; the names are those of the tables above."""
    policy = "internalTrafficPolicy" if to is To.CLUSTER_IP else "externalTrafficPolicy"
    ranges = [[], ["9.0.0.0/8"]] if to is To.LOAD_BALANCER else [[]]
    for value, origin, listed in itertools.product(["Cluster", "Local"], ["pod", "node", "outside"], ranges):
        spec = {**BALANCED, policy: value, "loadBalancerSourceRanges": listed}
        slices = slice_of("ns1/svc1", *ENDPOINTS[endpoints])
        told = {**MODES[mode], **SETTINGS[settings]}
        agree(await explaining(service(**spec), slices, to=to, origin=origin, **told))


def agree(found: Explanation) -> None:
    by = {action: [step for step in found.steps if step.action is action] for action in Action}
    translated = {step.endpoint for step in by[Action.TRANSLATE]}
    match found.outcome:
        case Outcome.DELIVERED:
            assert translated == {item.target for item in found.endpoints if item.eligible}
            # In userspace mode the process calls the endpoint itself, and so with another source.
            assert bool(by[Action.MASQUERADE]) is (found.source_rewritten and found.mode != "userspace")
            assert not by[Action.DROP]
            assert not by[Action.REFUSE]
        case Outcome.REFUSED | Outcome.CLOSED:
            assert not translated
            assert by[Action.REFUSE]
        case Outcome.DROPPED:
            # IPVS has translated what the node itself sends before it can be dropped.
            assert not translated or (found.mode, found.origin) == ("ipvs", "node")
            assert by[Action.DROP]
        case Outcome.IGNORED:
            assert not found.steps
