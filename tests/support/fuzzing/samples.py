"""One good object of each kind that has rules of its own: where mutations start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).with_suffix(".yaml")


def samples() -> dict[str, Any]:
    """Kind -> a good object without name; shared parts are the same values, nobody changes them."""
    text = yaml.safe_load(_FILE.read_text())
    spec = text["pod_spec"]
    plain = {key: value for key, value in spec.items() if key != "initContainers"}
    words = {
        "POD": spec,
        "TEMPLATE": {"metadata": {"labels": {"a": "b"}}, "spec": plain},
        "ONCE": {"metadata": {"labels": {"a": "b"}}, "spec": {**plain, "restartPolicy": "Never"}},
    }
    return {kind: _filled(obj, words) for kind, obj in text["objects"].items()}


def _filled(value: Any, words: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(held, words) for key, held in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    return words.get(value, value) if isinstance(value, str) else value
