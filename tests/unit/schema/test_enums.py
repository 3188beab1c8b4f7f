"""The words that OpenAPI tells of fields."""

from __future__ import annotations

import orjson

from controlplane.resources.catalog import KINDS
from controlplane.schema import definitions, enums, openapi


def test_every_field_is_one_of_the_definitions_and_a_text() -> None:
    schemas = definitions.schemas()
    for type_name, fields in enums.words().items():
        for field, choices in fields.items():
            schema = schemas[type_name]["properties"][field]
            assert schema["type"] == "string", (type_name, field)
            assert choices == sorted(set(choices)), (type_name, field)


def test_documents_tell_them_and_the_data_stays_as_it_is() -> None:
    document = orjson.loads(openapi.document("batch", "v1", KINDS))
    spec = document["components"]["schemas"]["io.k8s.api.batch.v1.CronJobSpec"]
    policy = spec["properties"]["concurrencyPolicy"]
    assert policy["enum"] == ["Allow", "Forbid", "Replace"]
    assert policy["description"].endswith(
        '\n\nPossible enum values:\n - `"Allow"`\n - `"Forbid"`\n - `"Replace"`'
    )
    untouched = definitions.schemas()["io.k8s.api.batch.v1.CronJobSpec"]["properties"]["concurrencyPolicy"]
    assert "enum" not in untouched
    assert enums.with_words("io.k8s.api.core.v1.Nothing", untouched) is untouched
