"""The SPDY codec, spoken to by a client written here from the specification."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import examples

from netkit.node.streams.spdy import (
    DataReceived,
    Event,
    GoneAway,
    SpdyError,
    SpdyServer,
    StreamOpened,
    StreamReset,
)
from netkit.node.streams.spdy_dictionary import DICTIONARY


class Client:
    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def open(self, stream: int, headers: dict[str, str], *, finished: bool = False) -> bytes:
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack(">IIBB", stream, 0, 0, 0) + packed
        return control(1, payload, 1 if finished else 0)

    def headers_of(self, reply: bytes) -> int:
        (count,) = struct.unpack_from(">I", self._inflate.decompress(reply[12:]))
        return int(count)


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(payload)) + payload


def test_dictionary_is_the_specifications() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def conversation() -> tuple[bytes, list[Event]]:
    client = Client()
    sent = (
        client.open(1, {"streamType": "error", "port": "80"}, finished=True)
        + client.open(3, {"streamType": "data", "port": "80", "requestID": "0"})
        + control(4, b"\0\0\0\0")
        + data(3, b"GET / HTTP/1.0\r\n\r\n")
        + control(9, struct.pack(">II", 3, 100))
        + data(3, b"", 1)
        + control(3, struct.pack(">II", 1, 5))
        + control(7, struct.pack(">II", 3, 0))
    )
    return sent, [
        StreamOpened(1, {"streamtype": "error", "port": "80"}, True),
        StreamOpened(3, {"streamtype": "data", "port": "80", "requestid": "0"}, False),
        DataReceived(3, b"GET / HTTP/1.0\r\n\r\n", False),
        DataReceived(3, b"", True),
        StreamReset(1, 5),
        GoneAway(),
    ]


def merged(events: list[Event]) -> list[Event]:
    """Pieces of one stream's data as one: where they are cut says nothing."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and event.stream == last.stream
            and event.data
            and not last.finished
        ):
            found[-1] = DataReceived(event.stream, last.data + event.data, event.finished)
        else:
            found.append(event)
    return found


@given(st.lists(st.integers(min_value=1, max_value=200), max_size=30))
def test_any_slicing_gives_the_same_events(cuts: list[int]) -> None:
    sent, expected = conversation()
    server = SpdyServer()
    events: list[Event] = []
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    for start, end in pairwise(edges):
        events += server.receive(sent[start:end])
    assert merged(events) == expected


def test_ping_is_echoed_and_replies_share_one_compressor() -> None:
    client, server = Client(), SpdyServer()
    assert list(server.receive(control(6, b"\0\0\0\x07"))) == []
    assert server.take_output() == control(6, b"\0\0\0\x07")
    for stream in (1, 3):
        server.reply(stream, {"a": "b"})
        reply = server.take_output()
        assert struct.unpack_from(">HHII", reply)[1] == 2
        assert struct.unpack_from(">I", reply, 8) == (stream,)
        assert client.headers_of(reply) == 1


def test_sending() -> None:
    server = SpdyServer()
    server.send(3, b"abc")
    server.send(3, b"", finished=True)
    server.reset(5)
    assert server.take_output() == data(3, b"abc") + data(3, b"", 1) + control(3, struct.pack(">II", 5, 5))
    assert server.take_output() == b""


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">HHI", 0x8002, 1, 0),
        control(1, b"\0"),
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + b"not compressed"),
        b"HTTP/1.1 200 OK\r\n" + b"\xff" * 20 + control(3, b"xx"),
    ],
)
def test_nonsense_is_refused_or_waits(sent: bytes) -> None:
    server = SpdyServer()
    try:
        events = list(server.receive(sent))
    except SpdyError:
        return
    # What looks like a long data frame is waited for.
    assert all(isinstance(event, DataReceived) for event in events)
    assert sent.startswith(b"HTTP")


def test_a_bomb_of_headers_is_refused_before_it_is_unpacked() -> None:
    packer = zlib.compressobj(9, zdict=DICTIONARY)
    packed = packer.compress(bytes(24 * 1024 * 1024)) + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(SpdyError, match=r"header block|control frame|frame of"):
        list(SpdyServer().receive(control(1, struct.pack(">IIBB", 1, 0, 0, 0) + packed)))


@settings(max_examples=examples(200), derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 60),
)
def test_a_conversation_with_faults_ends_or_goes_on(faults: list[tuple[int, int, bytes]], step: int) -> None:
    sent = bytearray(conversation()[0])
    for at, what, extra in faults:
        place = at % len(sent)
        if what == 0:
            sent[place : place + len(extra)] = extra
        elif what == 1:
            sent[place:place] = extra
        elif what == 2:
            del sent[place : place + len(extra)]
        else:
            sent[place:place] = sent[: at // 4 + 1]
    server = SpdyServer()
    with suppress(SpdyError):
        for start in range(0, len(sent), step):
            for event in server.receive(bytes(sent[start : start + step])):
                assert isinstance(event, Event)
    assert len(server.take_output()) <= 2 * len(sent)
