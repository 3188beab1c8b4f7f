"""Secrets that hold tokens, as authentication and controllers read them: their data as text, and when they end."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta import timestamps

BOOTSTRAP_TOKEN = "bootstrap.kubernetes.io/token"
"""The type of the Secrets by which new nodes introduce themselves."""


def decoded(secret: Object) -> Mapping[str, str]:
    """A Secret's data as text; what is no text is left out."""
    found = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError, TypeError):
            continue
    return found


def is_expired(data: Mapping[str, str], now: datetime) -> bool:
    """Whether the token's time is over; a time nobody can read counts as over."""
    text = data.get("expiration", "")
    if not text:
        return False
    try:
        return timestamps.parse(text) <= now
    except ValueError:
        return True
