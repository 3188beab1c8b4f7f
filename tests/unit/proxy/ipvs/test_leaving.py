"""Who leaves, told the time: looked at every minute, gone with the last connection."""

from support.ipvs import key, target

from netkit.kernel.ipvs_values import RealServer, Transport
from netkit.proxy.ipvs.leaving import LOOK_SECONDS, Leaving

HERE = key("172.30.0.41:80")
ONE, TWO = target("10.244.2.1:80"), target("10.244.2.2:80")


def real(who, connections: int = 0, weight: int = 0) -> RealServer:
    return RealServer(who, weight, active=connections // 2, inactive=connections - connections // 2)


def test_without_connections_nobody_waits() -> None:
    leaving = Leaving()
    assert leaving.leave(HERE, [real(ONE), real(TWO)], 0.0) == [ONE, TWO]
    assert not leaving
    assert leaving.delay(0.0) is None


def test_looks_are_a_minute_apart() -> None:
    leaving = Leaving()
    assert leaving.leave(HERE, [real(ONE, 1), real(TWO)], 100.0) == [TWO]
    assert (HERE, ONE) in leaving
    assert leaving.delay(100.0) == LOOK_SECONDS == 60.0
    assert leaving.due(159.9) == ()
    assert leaving.due(160.0) == (HERE,)
    assert leaving.looked(HERE, [real(ONE, 1)]) == []
    assert leaving.due(160.0) == ()
    assert leaving.delay(170.0) == 50.0
    assert leaving.due(225.0) == (HERE,)
    assert leaving.looked(HERE, [real(ONE)]) == leaving.looked(HERE, [real(ONE)]) == [ONE]
    assert leaving, "until it was deleted"
    leaving.drop(HERE, [ONE])
    assert not leaving
    assert leaving.delay(225.0) is None


def test_a_later_leaver_does_not_put_off_the_look() -> None:
    leaving = Leaving()
    leaving.leave(HERE, [real(ONE, 1)], 0.0)
    leaving.leave(HERE, [real(TWO, 1)], 59.0)
    assert leaving.of(HERE) == {ONE, TWO}
    assert leaving.due(60.0) == (HERE,)


def test_who_is_back_or_gone_by_himself_is_forgotten() -> None:
    leaving = Leaving()
    leaving.leave(HERE, [real(ONE, 1), real(TWO, 1)], 0.0)
    assert leaving.looked(HERE, [real(ONE, 1, weight=1)]) == []
    assert not leaving
    leaving.leave(HERE, [real(ONE, 1), real(TWO, 1)], 0.0)
    leaving.drop(HERE, [ONE])
    assert leaving.of(HERE) == {TWO}
    leaving.drop(HERE)
    assert not leaving


def test_only_tcp_waits() -> None:
    for transport in (Transport.UDP, Transport.SCTP):
        leaving = Leaving()
        assert leaving.leave(key("172.30.0.41:80", transport), [real(ONE, 4)], 0.0) == [ONE]
