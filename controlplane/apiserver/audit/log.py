"""Writes audit events as JSON lines to a file or to standard output: an observer of the core.

A full disk or an unwritable file is told in the server's log and counted; requests go on.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from logging.handlers import RotatingFileHandler
from pathlib import Path

import orjson

from controlplane.apiserver.audit.events import event
from controlplane.apiserver.audit.policy import Level, Policy, Stage, Verdict
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.passage import Passage

log = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024


class AuditLog:
    """See `passage.Observer`. `path` None = standard output; a file is rotated beyond `max_bytes` (0 = never),
    `backups` old ones are kept. Raises OSError when the file cannot be opened."""

    def __init__(
        self, policy: Policy, path: Path | None, *, max_bytes: int = 100 * MEGABYTE, backups: int = 10
    ) -> None:
        self._policy = policy
        self._verdicts: dict[int, Verdict] = {}
        self.events = 0
        self.levels: Counter[str] = Counter()
        self.failures = 0
        self._handler: logging.Handler
        if path is None:
            self._handler = logging.StreamHandler(sys.stdout)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)
            self._handler = RotatingFileHandler(
                path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8"
            )
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._handler.handleError = self._failed  # type: ignore[method-assign]

    def close(self) -> None:
        self._handler.close()

    def received(self, passage: Passage) -> None:
        verdict = self._policy.verdict(passage.request.impersonator or passage.request.user, passage.info)
        self.levels[verdict.level] += 1
        if verdict.level is Level.NONE:
            return
        self._verdicts[id(passage)] = verdict
        self._tell(passage, verdict, Stage.RECEIVED)

    def begun(self, passage: Passage) -> None:
        verdict = self._verdicts.get(id(passage))
        if verdict is not None:
            self._tell(passage, verdict, Stage.STARTED, ApiResponse(passage.code, {}))

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        verdict = self._verdicts.pop(id(passage), None)
        if verdict is not None:
            stage = Stage.PANIC if passage.panic else Stage.COMPLETE
            self._tell(passage, verdict, stage, response)

    def _tell(
        self, passage: Passage, verdict: Verdict, stage: Stage, response: ApiResponse | None = None
    ) -> None:
        if stage in verdict.omit_stages:
            return
        line = orjson.dumps(event(passage, verdict, stage, response), default=str).decode()
        self.events += 1
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def _failed(self, record: logging.LogRecord) -> None:
        self.failures += 1
        if self.failures == 1:
            log.error("audit: events cannot be written: %s", sys.exc_info()[1])
