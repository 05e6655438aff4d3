"""Log lines of a server: one JSON object or one line of text for each event."""

import json
import logging
import sys
from datetime import datetime, timezone

FIELDS = "fields"
"""Attribute of a log record under which its fields lie."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, event, then the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``."""
        return json.dumps(self.entry(record), default=str)

    def entry(self, record: logging.LogRecord) -> dict[str, object]:
        """Return what the line says."""
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017
        entry: dict[str, object] = {"ts": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        entry |= getattr(record, FIELDS, {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return entry


class TextFormatter(JsonFormatter):
    """The same as a line to read: moment, level, event, then ``key=value``; texts are quoted as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``."""
        moment, level, event, *fields = self.entry(record).items()
        words = [str(moment[1]), str(level[1]), str(event[1]).replace("\n", " ")]
        return " ".join(words + [f"{key}={json.dumps(value, default=str)}" for key, value in fields])


FORMATTERS: dict[str, type[logging.Formatter]] = {"json": JsonFormatter, "text": TextFormatter}


def configure_logs(kind: str, level: int = logging.INFO) -> None:
    """Send messages of ``level`` and above to standard error, in the format ``kind``, a key of ``FORMATTERS``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[kind]())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log(logger: logging.Logger, event: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Log ``event`` with its ``fields``."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={FIELDS: fields})
