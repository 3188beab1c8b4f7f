"""What cannot be explained, because what was asked about is not there."""

from __future__ import annotations


class NotExplainable(Exception):
    """The question names a Service, port, address or node that is not there. `hint` lists what is, or is empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
