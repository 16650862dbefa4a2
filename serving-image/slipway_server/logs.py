"""Log lines: text, or JSON objects with SLIPWAY_LOG_FORMAT=json. Never a payload, never a credential."""

import json
import logging
import os
import sys
import time
from typing import Any

ENV = "SLIPWAY_LOG_FORMAT"
_log = logging.getLogger("slipway")


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = time.gmtime(record.created)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{int(record.msecs):03d}Z"
        fields: dict[str, Any] = getattr(record, "fields", {})
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        if self.as_json:
            line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage(), **fields}
            return json.dumps(line, default=str)
        pairs = "".join(f" {key}={value}" for key, value in fields.items())
        return f"{when} {record.levelname.lower():7s} {record.getMessage()}{pairs}"


def setup() -> None:
    """Sends every log line of the process to stdout in the format that SLIPWAY_LOG_FORMAT names (text or json)."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter(os.environ.get(ENV, "text").lower() == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def info(message: str, **fields: Any) -> None:
    """Logs what happened, with the values that matter as fields."""
    _log.info(message, extra={"fields": fields})


def warning(message: str, **fields: Any) -> None:
    """Logs what an operator of the cluster might have to look at."""
    _log.warning(message, extra={"fields": fields})


def error(message: str, **fields: Any) -> None:
    """Logs what went wrong on our side."""
    _log.error(message, extra={"fields": fields})
