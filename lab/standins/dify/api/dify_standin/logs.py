"""Logs to standard output, as text or as Dify's JSON lines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .settings import SETTINGS

SEVERITIES = {logging.WARNING: "WARN", logging.CRITICAL: "ERROR"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with Dify's keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "severity": SEVERITIES.get(record.levelno, record.levelname),
            "service": SETTINGS.APPLICATION_NAME,
            "caller": f"{record.filename}:{record.lineno}",
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure() -> None:
    """Send all logs of this process to standard output in the wanted form."""
    handler = logging.StreamHandler(sys.stdout)
    text = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s [%(threadName)s] [%(filename)s:%(lineno)d] %(message)s")
    handler.setFormatter(JsonFormatter() if SETTINGS.LOG_OUTPUT_FORMAT == "json" else text)
    logging.basicConfig(level=SETTINGS.LOG_LEVEL, handlers=[handler], force=True)
