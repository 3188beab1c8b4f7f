"""How the kubelet API says no: a status code and one line of text, which the API server passes on."""

from __future__ import annotations


class Refusal(Exception):
    """`status` is the HTTP code; the text is the body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
