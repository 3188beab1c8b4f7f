"""What the builtin servers say."""

from __future__ import annotations

import json

import pytest

from netkit.node.runtime.behaviours import ANSWERS, Endpoint, Facts, Response, answer_datagram
from netkit.node.runtime.http_parser import Request

FACTS = Facts("web-1", "web-1", "default", "node-2", ("10.244.2.7",), "hi there")
CLIENT, OWN = Endpoint("10.244.0.1", 40000), Endpoint("10.244.2.7", 80)


def ask(
    behaviour: str, target: str = "/", method: str = "GET", headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    request = Request(method, target, "1.1", (("Host", "svc:8080"), *headers))
    return ANSWERS[behaviour](request, FACTS, CLIENT, OWN)


def test_every_behaviour_answers_the_root() -> None:
    assert {name: ask(name).status for name in ANSWERS} == dict.fromkeys(ANSWERS, 200)


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        ("hostname", "web-1\n"),
        ("hostname-page", "<p>Hello,  web-1</p>"),
        ("nginx", "<h1>Welcome to nginx!</h1>"),
        ("httpd", "<h1>It works!</h1>"),
        ("http-echo", "hi there\n"),
        ("hello-app", "Hello, world!\nVersion: hi there\nHostname: web-1\n"),
        (
            "whoami",
            "Hostname: web-1\nIP: 127.0.0.1\nIP: 10.244.2.7\nRemoteAddr: 10.244.0.1:40000\nGET / HTTP/1.1\n",
        ),
        ("request-served", "Request served by web-1\n\nGET / HTTP/1.1\n\nHost: svc:8080\n"),
        ("hello-plain", "Server address: 10.244.2.7:80\nServer name: web-1\n"),
    ],
)
def test_texts(behaviour: str, text: str) -> None:
    assert text in ask(behaviour).body.decode()


def test_echo_names_everything_a_lesson_looks_for() -> None:
    text = ask("echo", "/path?a=1", headers=(("X-Test", "yes"),)).body.decode()
    for wanted in (
        "Hostname: web-1", "pod name:\tweb-1", "pod namespace:\tdefault", "pod IP:\t10.244.2.7", "node name:\tnode-2",
        "client_address=10.244.0.1", "request_line=GET /path?a=1 HTTP/1.1", "x-test=yes", "host=svc:8080",
    ):  # fmt: skip
        assert wanted in text


def test_nginx_refuses_as_nginx() -> None:
    missing = ask("nginx", "/nothing")
    assert (missing.status, missing.server) == (404, "nginx/1.27.5")
    assert b"<center><h1>404 Not Found</h1></center>" in missing.body
    assert ask("nginx", method="POST").status == 405


def test_echo_json_is_json() -> None:
    answer = json.loads(ask("echo-json", "/p?q=1").body)
    assert answer["environment"]["HOSTNAME"] == "web-1"
    assert answer["request"]["query"] == {"q": "1"}


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/hostname", "web-1"),
        ("/clientip", "10.244.0.1:40000"),
        ("/echo?msg=hello", "hello"),
        ("/header?key=Host", "svc:8080"),
    ],
)
def test_netexec_commands(target: str, text: str) -> None:
    assert ask("netexec", target).body.decode() == text


def test_netexec_unknown_path() -> None:
    assert ask("netexec", "/other").status == 404


@pytest.mark.parametrize(
    ("behaviour", "sent", "answer"),
    [
        ("echo", b"ping", b"ping"),
        ("hostname", b"x", b"web-1\n"),
        ("netexec", b"hostname\n", b"web-1"),
        ("netexec", b"clientip", b"10.244.0.1:40000"),
        ("netexec", b"echo one two", b"one two"),
    ],
)
def test_datagrams(behaviour: str, sent: bytes, answer: bytes) -> None:
    assert answer_datagram(behaviour, sent, FACTS, CLIENT) == answer
