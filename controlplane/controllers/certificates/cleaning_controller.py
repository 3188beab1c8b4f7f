"""Deletes certificate requests nobody needs any more: issued, denied, failed and forgotten ones, and expired ones."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509

from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import NotFound, Object, StatusError
from controlplane.meta import timestamps
from controlplane.meta.objects import name, uid
from controlplane.resources.catalog import CERTIFICATE_SIGNING_REQUEST
from controlplane.resources.certificates import APPROVED, DENIED, FAILED, conditions, decode

log = logging.getLogger(__name__)

_SETTLED = timedelta(hours=1)
_PENDING = timedelta(hours=24)
_PAUSE_SECONDS = 600.0
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class CertificateCleaningController:
    """Looks through all requests every `pause` seconds."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        pause: float = _PAUSE_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._requests = informers.of(CERTIFICATE_SIGNING_REQUEST)
        self._pause = pause
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        await self._requests.synced()
        while True:
            for request in list(self._requests.items()):
                if is_settled(request, self._clock()):
                    await self._delete(request)
            await asyncio.sleep(self._pause)

    async def _delete(self, request: Object) -> None:
        try:
            await self._client.delete(CERTIFICATE_SIGNING_REQUEST, name(request), uid=uid(request))
        except NotFound:
            return
        except (StatusError, ConnectionFailed) as error:
            log.warning("%s: not deleted: %s; again in %.0f s", name(request), error, self._pause)


def is_settled(request: Object, now: datetime) -> bool:
    """Whether nothing more is to be done with it, or its certificate is over."""
    certificate = decode((request.get("status") or {}).get("certificate"))
    approved, denied, failed = (conditions(request, kind) for kind in (APPROVED, DENIED, FAILED))
    if certificate and (_is_over(certificate, now) or _are_older(approved, now)):
        return True
    if _are_older(denied, now) or _are_older(failed, now):
        return True
    created = timestamps.parse(request["metadata"]["creationTimestamp"])
    if not (approved or denied or failed):
        return now - created > _PENDING
    return bool(approved) and not certificate and now - created > _PENDING


def _is_over(certificate: bytes, now: datetime) -> bool:
    block = _CERTIFICATE.search(certificate)
    if block is None:
        return False
    return x509.load_pem_x509_certificate(block.group()).not_valid_after_utc < now


def _are_older(found: Sequence[Object], now: datetime) -> bool:
    moments = [entry.get("lastUpdateTime") for entry in found]
    return any(moment and now - timestamps.parse(moment) > _SETTLED for moment in moments)
