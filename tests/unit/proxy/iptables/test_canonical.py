"""Ways to write one rule, and the one way in which iptables-save prints it."""

import pytest

from netkit.proxy.addresses import Family
from netkit.proxy.iptables.canonical import canonical

MASK = "255.255.255.255"

WAYS = [
    ("-d 1.2.3.4 -j X", "-d 1.2.3.4/32 -j X"),
    ("-j X -d 10.1.2.3/8 ! -s 10.0.0.0/255.0.0.0", "! -s 10.0.0.0/8 -d 10.0.0.0/8 -j X"),
    ("-s 0.0.0.0/0 -j X", "-j X"),
    ("! -s 0.0.0.0/0 -j X", "! -s 0.0.0.0/0 -j X"),
    ("-p 17 -j X", "-p udp -j X"),
    ("-p all -j X", "-j X"),
    ("-p TCP --dport 80 -j X", "-p tcp -m tcp --dport 80 -j X"),
    ("-m tcp -p tcp --destination-port 80 --jump X", "-p tcp -m tcp --dport 80 -j X"),
    (
        '-m comment --comment "a/b cluster IP" -m tcp -p tcp -d 1.2.3.4 --dport 80 ! -i cni0 -j X',
        '-d 1.2.3.4/32 ! -i cni0 -p tcp -m comment --comment "a/b cluster IP" -m tcp --dport 80 -j X',
    ),
    ("-m comment --comment a/b -j X", '-m comment --comment "a/b" -j X'),
    (r'-m comment --comment "say \"hi\"" -j X', r'-m comment --comment "say \"hi\"" -j X'),
    (
        '-m comment --comment "-s is no option, ! neither"',
        '-m comment --comment "-s is no option, ! neither"',
    ),
    ("-m mark ! --mark 0x4000/16384 -j RETURN", "-m mark ! --mark 0x4000/0x4000 -j RETURN"),
    ("-m mark --mark 1 -j X", "-m mark --mark 0x1 -j X"),
    ("-m mark --mark 1/0xffffffff -j X", "-m mark --mark 0x1 -j X"),
    ("-j MARK --or-mark 0x4000", "-j MARK --set-xmark 0x4000/0x4000"),
    ("-j MARK --xor-mark 0x4000", "-j MARK --set-xmark 0x4000/0x0"),
    ("-j MARK --and-mark 0xffffbfff", "-j MARK --set-xmark 0x0/0x4000"),
    ("-j MARK --set-mark 7", "-j MARK --set-xmark 0x7/0xffffffff"),
    ("-j MARK --set-mark 0x4000/0x4000", "-j MARK --set-xmark 0x4000/0x4000"),
    ("-j REJECT", "-j REJECT --reject-with icmp-port-unreachable"),
    ("-j REJECT --reject-with tcp-reset", "-j REJECT --reject-with tcp-reset"),
    ("-g X", "-g X"),
    (
        "-m statistic --mode random --probability 0.5 -j X",
        "-m statistic --mode random --probability 0.50000000000 -j X",
    ),
    (
        "-m statistic --mode random --probability 0.3333333333 -j X",
        "-m statistic --mode random --probability 0.33333333349 -j X",
    ),
    (
        "-m conntrack ! --ctstate DNAT,ESTABLISHED,RELATED -j DROP",
        "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
    ),
    (
        "-m recent --name S --rcheck --reap --seconds 60 -j S",
        f"-m recent --rcheck --seconds 60 --reap --name S --mask {MASK} --rsource -j S",
    ),
    ("-m recent --name S --set -j X", f"-m recent --set --name S --mask {MASK} --rsource -j X"),
    ("-m nfacct --nfacct-name counted -j X", "-m nfacct --nfacct-name  counted -j X"),
]


@pytest.mark.parametrize(("written", "printed"), WAYS)
def test_every_way_becomes_the_printed_one(written: str, printed: str) -> None:
    assert canonical(written, Family.IPV4) == printed
    assert canonical(printed, Family.IPV4) == printed


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("-d FD00:0:0::41 -j X", "-d fd00::41/128 -j X"),
        ("-s ::/0 -j X", "-j X"),
        ("-j REJECT", "-j REJECT --reject-with icmp6-port-unreachable"),
        (
            "-m recent --set --name S",
            "-m recent --set --name S --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource",
        ),
        ("-p tcp -j DNAT --to-destination [fd00::1]:80", "-p tcp -j DNAT --to-destination [fd00::1]:80"),
    ],
)
def test_ipv6(written: str, printed: str) -> None:
    assert canonical(written, Family.IPV6) == printed
