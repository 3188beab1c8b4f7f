"""Which flows are cleaned away, as in upstream's `TestCleanStaleEntries` and `TestServiceWithoutEndpoints`
(pkg/proxy/conntrack/cleanup_test.go).
"""

from __future__ import annotations

from itertools import product

from support.proxy import Object, endpoint, service, slice_of, state_of

from netkit.kernel.conntrack import Entry
from netkit.kernel.conntrack_fake import FakeConntrack, entry
from netkit.proxy.conntrack import UDPServices

TCP, UDP, SCTP = 6, 17, 132
CLUSTER_IP, EXTERNAL_IP, BALANCER = "172.30.1.1", "192.168.99.100", "1.2.3.4"
ADDRESSES = (CLUSTER_IP, BALANCER, EXTERNAL_IP)
SERVING, NOT_SERVING, DELETED = "10.240.0.4", "10.240.1.5", "10.240.2.6"
PORT, OTHER_PORT, NODE_PORT = 8000, 3000, 32000
POD_PORT, OLD_POD_PORT = 9090, 8080
CLIENT, NODE_IP = "10.240.9.9:5000", "192.168.0.2"

SERVICE: Object = service(
    "test/cleanup-test",
    CLUSTER_IP,
    [
        {"name": "test-tcp", "port": PORT, "protocol": "TCP"},
        {"name": "test-udp", "port": PORT, "protocol": "UDP", "nodePort": NODE_PORT},
        {"name": "test-sctp", "port": PORT, "protocol": "SCTP", "nodePort": NODE_PORT},
    ],
    externalIPs=[EXTERNAL_IP],
    ingress=[{"ip": BALANCER}],
)
POD_PORTS = [
    {"name": f"test-{protocol.lower()}", "port": POD_PORT, "protocol": protocol}
    for protocol in ("TCP", "UDP", "SCTP")
]
SLICE: Object = slice_of(
    "test/cleanup-test",
    endpoint(SERVING, ready=None, serving=True),
    endpoint(NOT_SERVING, ready=False, serving=False),
    ports=POD_PORTS,
)


def cleaned(*objects: Object, entries: list[Entry]) -> list[Entry]:
    """The flows that are deleted."""
    return UDPServices.of(state_of(*objects)).stale(entries)


def test_of_all_flows_those_of_udp_to_a_service_and_no_endpoint_of_it() -> None:
    kept, gone = [], []
    for address in ADDRESSES:
        # The endpoint has another port now.
        gone.append(entry(UDP, CLIENT, f"{address}:{PORT}", f"{SERVING}:{OLD_POD_PORT}"))
    for pod, protocol in product((SERVING, NOT_SERVING, DELETED), (TCP, UDP, SCTP)):
        stale = protocol == UDP and pod != SERVING
        for address, port in product(ADDRESSES, (PORT, OTHER_PORT)):
            flow = entry(protocol, CLIENT, f"{address}:{port}", f"{pod}:{POD_PORT}")
            (gone if stale and port == PORT else kept).append(flow)
        flow = entry(protocol, CLIENT, f"{NODE_IP}:{NODE_PORT}", f"{pod}:{POD_PORT}")
        (gone if stale else kept).append(flow)
    for address, port in product(ADDRESSES, (PORT, OTHER_PORT)):
        # Never translated: made before the rules were there.
        (gone if port == PORT else kept).append(entry(UDP, CLIENT, f"{address}:{port}"))
    assert (len(kept), len(gone)) == (58, 14)
    table = FakeConntrack([*kept, *gone])
    assert table.delete(cleaned(SERVICE, SLICE, entries=table.entries)) == len(gone)
    assert table.entries == kept


def test_a_service_without_endpoints_keeps_no_flow() -> None:
    """kube-proxy 1.32 to 1.36 kept them all, by mistake."""
    flows = [entry(UDP, CLIENT, f"{EXTERNAL_IP}:{PORT}", f"{pod}:{POD_PORT}") for pod in (SERVING, DELETED)]
    others = slice_of("test/non-existing-service", SERVING, ports=POD_PORTS)
    assert cleaned(SERVICE, others, entries=flows) == flows


def test_an_endpoint_that_is_published_before_it_is_ready_keeps_its_flows() -> None:
    """It gets new flows, so it keeps old ones. kube-proxy, which asks for `serving` alone, cuts them off."""
    published = slice_of("test/cleanup-test", endpoint(SERVING, ready=True, serving=False), ports=POD_PORTS)
    flow = entry(UDP, CLIENT, f"{CLUSTER_IP}:{PORT}", f"{SERVING}:{POD_PORT}")
    assert cleaned(SERVICE, published, entries=[flow]) == []
