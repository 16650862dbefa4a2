"""Log lines as JSON or text, each with the key of the object that it is about."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

# The key (namespace/name) that the running task reconciles.
current_key: ContextVar[str] = ContextVar("current_key", default="")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if key := current_key.get():
            line["object"] = key
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        key = current_key.get()
        text = super().format(record)
        return f"{text} object={key}" if key else text


def configure(log_format: str, level: str) -> None:
    """Send all log lines to standard error in the format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf tells of its own workings at info: for its users that is noise.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
