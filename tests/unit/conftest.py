"""Unit tests need no root; property tests are about results: a busy machine must not fail them."""

from hypothesis import HealthCheck, settings

settings.register_profile("results", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("results")
