"""How a proxy that runs alone logs: to standard error, as text or as JSON lines. Called once, by its main function."""

from __future__ import annotations

import json
import logging
import sys

from netkit.proxy.configuration.document import LoggingConfiguration

_DEBUG_FROM = 4
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_as(config: LoggingConfiguration) -> None:
    """Log from now on as the configuration says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if config.format == "json" else logging.Formatter(_TEXT))
    level = logging.DEBUG if config.verbosity >= _DEBUG_FROM else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


class _JsonLines(logging.Formatter):
    """One object per line, with the keys of Kubernetes' JSON logs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(record.created * 1000, 3),
            "caller": f"{record.filename}:{record.lineno}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["err"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
