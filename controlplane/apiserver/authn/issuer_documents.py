"""What relying parties read of this cluster as an issuer of tokens: the discovery document and the keys. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from controlplane.apiserver.authn.keys import VerifyingKey, jwk
from controlplane.apiserver.messages import ApiResponse

CONFIGURATION_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/openid/v1/jwks"
_CACHED = "public, max-age=3600"


def issuer_documents(issuer: str, keys_url: str, keys: Sequence[VerifyingKey]) -> Mapping[str, ApiResponse]:
    """The answers by path; none for an issuer that is no https URL, since nobody could ask there."""
    if not issuer.startswith("https://"):
        return {}
    configuration = {
        "issuer": issuer,
        "jwks_uri": keys_url,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key.algorithm for key in keys}),
    }
    return {
        CONFIGURATION_PATH: _answer("application/json", configuration),
        KEYS_PATH: _answer("application/jwk-set+json", {"keys": [jwk(key) for key in keys]}),
    }


def _answer(content_type: str, document: object) -> ApiResponse:
    return ApiResponse(200, {"Content-Type": content_type, "Cache-Control": _CACHED}, orjson.dumps(document))
