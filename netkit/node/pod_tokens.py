"""The ServiceAccount tokens of one pod's projected volumes: asked for once, renewed after four fifths of their life.

Used by `pod_setup`. A token that cannot be renewed is kept as long as it is good, as kubelet does it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from controlplane.errors import Object
from controlplane.meta import objects
from netkit.node.config_source import ConfigSource
from netkit.node.podspec.references import ConfigError, TokenWish, token_wish
from netkit.node.podspec.volumes import MountError

log = logging.getLogger(__name__)

_RENEW_AFTER = 0.8
_OLDEST_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Token:
    """`renew_at` and `ends_at` in seconds since the epoch."""

    text: str
    renew_at: float
    ends_at: float


class PodTokens:
    """Tokens by what the volumes wish."""

    def __init__(self, source: ConfigSource, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._tokens: dict[TokenWish, _Token] = {}

    async def fetch(self, pod: Object) -> Mapping[TokenWish, str]:
        """All of the pod's tokens, good ones. Raises MountError, ConnectionFailed."""
        for volume, wish in _wishes(pod):
            known = self._tokens.get(wish)
            if known is not None and self._clock() < known.renew_at:
                continue
            try:
                self._tokens[wish] = await self._request(pod, wish)
            except ConfigError as error:
                if known is None or self._clock() >= known.ends_at:
                    raise MountError(f'MountVolume.SetUp failed for volume "{volume}" : {error}') from error
                log.warning("%s: token not renewed, good until then: %s", objects.namespaced_name(pod), error)
        return {wish: token.text for wish, token in self._tokens.items()}

    async def _request(self, pod: Object, wish: TokenWish) -> _Token:
        asked_at = self._clock()
        text, ends_at = await self._source.token(pod, wish.audience, wish.seconds)
        life = min((ends_at - asked_at) * _RENEW_AFTER, _OLDEST_SECONDS)
        return _Token(text, asked_at + life, ends_at)


def _wishes(pod: Object) -> Iterator[tuple[str, TokenWish]]:
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                yield volume["name"], token_wish(source["serviceAccountToken"])
