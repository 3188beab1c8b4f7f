"""Errors of plug-ins and of their calling, with the codes of the CNI specification.

    CniError                 what a plug-in prints as JSON; also what one of other people's printed
    `-- PluginFailed         a plug-in of a chain: which one, at what, and its own words

Codes from 100 on are the plug-in's own affair.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Well-known codes of the specification."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    OURS = 100


class CniError(Exception):
    """`message` in one line, `details` for more."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}; {self.details}" if self.details else self.message

    def as_json(self, version: str) -> dict[str, Any]:
        """As a plug-in prints it."""
        found: dict[str, Any] = {"cniVersion": version, "code": int(self.code), "msg": self.message}
        return {**found, "details": self.details} if self.details else found


class PluginFailed(CniError):
    """`plugin` is the type of the one that failed, `command` what it was asked for."""

    def __init__(self, plugin: str, command: str, error: CniError) -> None:
        super().__init__(error.code, error.message, error.details)
        self.args = (plugin, command, error)
        self.plugin = plugin
        self.command = command

    def __str__(self) -> str:
        """In containerd's words."""
        return f'plugin type="{self.plugin}" failed ({self.command.lower()}): {super().__str__()}'
