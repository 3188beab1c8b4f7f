"""The builtin servers' HTTP parser."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.node.runtime.http_parser import BadHttp, Request, RequestParser

PIPELINED = (
    b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"
    b"POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n"
    b"GET / HTTP/1.0\r\n\r\n"
)
EXPECTED = [("/a?x=1", b""), ("/b", b"hello"), ("/c", b"abcde"), ("/d", b""), ("/", b"")]


@given(st.lists(st.integers(min_value=1, max_value=len(PIPELINED) - 1), max_size=12))
def test_any_slicing_gives_the_same_requests(cuts: list[int]) -> None:
    parser = RequestParser()
    requests: list[Request] = []
    edges = [0, *sorted(set(cuts)), len(PIPELINED)]
    for start, end in pairwise(edges):
        requests += parser.feed(PIPELINED[start:end])
    assert [(request.target, request.body) for request in requests] == EXPECTED
    assert parser.idle


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"G@T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
        b"GET / HTTP/1.1\r\n bad: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(BadHttp):
        list(RequestParser().feed(data))


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_keep_alive(head: bytes, kept: bool) -> None:
    (request,) = RequestParser().feed(head)
    assert request.keep_alive is kept


def test_continue_is_wanted_once() -> None:
    parser = RequestParser()
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert list(parser.feed(head)) == []
    assert parser.take_continue()
    assert not parser.take_continue()
    (request,) = parser.feed(b"ok")
    assert request.body == b"ok"
