"""Unit tests need no root, and no clock decides whether they pass."""

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
