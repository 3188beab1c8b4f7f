"""Thresholds of probes."""

from __future__ import annotations

from netkit.node.lifecycle.probes import ProbeKind, ProbeState, timing


def state(**probe: int) -> ProbeState:
    return ProbeState(timing(probe))


def test_defaults_are_kubernetes() -> None:
    found = timing({})
    assert (found.initial_delay, found.period, found.timeout) == (0, 10, 1)
    assert (found.success_threshold, found.failure_threshold, found.grace) == (1, 3, None)


def test_failures_count_in_a_row_only() -> None:
    probe = state(failureThreshold=3)
    assert probe.take(True)
    changes = [probe.take(success) for success in (False, False, True, False, False, False, False)]
    assert changes == [False, False, False, False, False, True, False]
    assert probe.result is False


def test_success_threshold() -> None:
    probe = state(successThreshold=2, failureThreshold=1)
    assert not probe.take(True)
    assert probe.take(True)
    assert probe.take(False)
    assert not probe.take(True)
    assert probe.take(True)


def test_words() -> None:
    assert [kind.word for kind in ProbeKind] == ["Startup", "Liveness", "Readiness"]
