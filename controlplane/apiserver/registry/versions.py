"""resourceVersion on reads: parsing, what options go together, the answers for the future and the past."""

from __future__ import annotations

from controlplane.apiserver.registry.requests import VersionMatch
from controlplane.apiserver.registry.storage import Storage, store_faults
from controlplane.errors import BadRequest, Cause, Expired, Invalid, ServerTimeout, invalid
from controlplane.resources.fieldpath import forbidden
from controlplane.resources.kind import Kind

_MATCH = "resourceVersionMatch"
_DIGITS = 1000
"""Of numbers with zeros in front; what is longer is none to be read in bounded time."""
_MAX = 2**64 - 1


def parse_version(text: str) -> int:
    """The number of a resourceVersion, 0 for "" and "0". Raises BadRequest."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise BadRequest(
            f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax',
        )
    number = int(text) if len(text) <= _DIGITS else _MAX + 1
    if number > _MAX:
        raise BadRequest(
            f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": value out of range',
        )
    return number


def check_list_match(version: str, match: VersionMatch | None, continue_token: str) -> None:
    """Which options go together on a list. Raises Invalid, BadRequest."""
    if match is not None:
        if not version:
            raise _options(forbidden(_MATCH, f"{_MATCH} is forbidden unless resourceVersion is provided"))
        if continue_token:
            raise _options(forbidden(_MATCH, f"{_MATCH} is forbidden when continue is provided"))
        if match is VersionMatch.EXACT and version == "0":
            raise _options(forbidden(_MATCH, f'{_MATCH} "exact" is forbidden for resourceVersion "0"'))
    if continue_token and version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")


def check_watch_match(match: VersionMatch | None, send_initial_events: bool) -> None:
    """Which options go together on a watch. Raises Invalid."""
    if match is not None and not send_initial_events:
        raise _options(
            forbidden(_MATCH, f"{_MATCH} is forbidden for watch unless sendInitialEvents is provided")
        )
    if send_initial_events and match is not VersionMatch.NOT_OLDER_THAN:
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise _options(forbidden(_MATCH, text))


async def reach(storage: Storage, kind: Kind, version: int) -> None:
    """Wait until the cache holds that version. Raises ServerTimeout when the store has not reached it itself."""
    cache = storage.cache(kind)
    if version <= cache.revision:
        return
    newest = await storage.revision()
    if version > newest:
        raise ServerTimeout(
            f"Too large resource version: {version}, current: {newest}",
            causes=[Cause("ResourceVersionTooLarge", "Too large resource version", "")],
            retry_after=1,
        )
    with store_faults():
        await cache.wait_for(version)


def too_old(version: int, oldest: int) -> Expired:
    """What a watch is told that must list again."""
    return Expired(f"too old resource version: {version} ({oldest})")


def _options(cause: Cause) -> Invalid:
    return invalid("ListOptions", "meta.k8s.io", "", [cause])
