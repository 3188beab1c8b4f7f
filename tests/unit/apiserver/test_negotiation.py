"""Accept headers as the real clients send them (KUBECTL headers verbatim)."""

from __future__ import annotations

import pytest

from controlplane.apiserver.negotiation import Shape, aggregated_discovery, representation
from controlplane.errors import NotAcceptable

KUBECTL_GET = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
KUBECTL_DISCOVERY = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def test_a_table_is_what_kubectl_get_prefers() -> None:
    wanted = representation(KUBECTL_GET)
    assert (wanted.shape, wanted.version, wanted.content_type) == (Shape.TABLE, "v1", "application/json")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/json, */*",
        "application/vnd.kubernetes.protobuf,application/json",
    ],
)
def test_plain_json_satisfies_the_rest(accept: str) -> None:
    wanted = representation(accept)
    assert (wanted.shape, wanted.yaml) == (Shape.OBJECT, False)


def test_yaml_and_quality() -> None:
    assert representation("application/yaml").yaml
    assert not representation("application/yaml;q=0.5, application/json").yaml
    with pytest.raises(NotAcceptable):
        representation("application/json;q=0")


@pytest.mark.parametrize(
    "accept",
    ["application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Table;v=v2;g=meta.k8s.io"],
)
def test_what_cannot_be_made_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="only the following media types are accepted"):
        representation(accept)


def test_bare_metadata_is_named_after_what_it_answers() -> None:
    one = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    many = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    assert representation(one).shape is Shape.METADATA
    assert representation(many, lists=True).shape is Shape.METADATA
    with pytest.raises(NotAcceptable):
        representation(one, lists=True)


def test_aggregated_discovery_by_version() -> None:
    assert aggregated_discovery(KUBECTL_DISCOVERY) == "v2"
    assert aggregated_discovery(KUBECTL_DISCOVERY.partition(",")[2]) == "v2beta1"
    assert aggregated_discovery("application/json") == ""
    assert aggregated_discovery("") == ""
