"""Log lines of a server: one JSON object or one line of text for each event."""

import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from datetime import datetime, timezone

from pipeline.core.printable import printable

MAX_LINES = 5000
"""Lines that may wait to be written."""
TOGETHER = 200
"""Lines that are written at a time."""
GATHERING_SECONDS = 0.02
"""Between two looks at what has come."""
LAST_SECONDS = 2.0
"""For which the end waits for the last lines to be read."""
INCIDENTS = 20
"""Lines about incidents that are written in a period."""
PERIOD_SECONDS = 10.0
LONGEST = 200
"""Characters of a text in such a line."""
STDERR = 2
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
        words = [str(moment[1]), str(level[1]), printable(event[1])]
        return " ".join(words + [f"{key}={json.dumps(value, default=str)}" for key, value in fields])


FORMATTERS: dict[str, type[logging.Formatter]] = {"json": JsonFormatter, "text": TextFormatter}


class LineWriter(logging.Handler):
    """A handler whose lines a thread of its own writes, so that nobody who logs waits for whoever reads.

    Lines that find ``MAX_LINES`` waiting are dropped and counted; once there is room again, a line says how many.
    """

    def __init__(self, file: int) -> None:
        super().__init__()
        self.num_dropped = 0
        self._told = 0
        self._file = file
        self._lines: deque[bytes] = deque()
        self._waiting = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line to the thread, or drop it."""
        if len(self._lines) >= MAX_LINES:
            self.num_dropped += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  (as logging's own handlers: a line that cannot be made ends nothing)
            line = f"a log line could not be made: {record.msg!r}"
        self._lines.append(line.encode("utf-8", "backslashreplace") + b"\n")
        if not self._waiting.is_set():
            self._waiting.set()

    def _write(self) -> None:
        while True:
            self._waiting.wait()
            self._waiting.clear()
            while self._lines:
                self._write_all(b"".join(self._lines.popleft() for _ in range(min(len(self._lines), TOGETHER))))
                if self.num_dropped > self._told and not self._lines:
                    dropped, self._told = self.num_dropped - self._told, self.num_dropped
                    log(logging.getLogger(__name__), "dropped", logging.WARNING, lines=dropped)
            if self._ending.is_set() and not self._lines:
                return
            self._ending.wait(GATHERING_SECONDS)  # what comes meanwhile is written together

    def _write_all(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more
            while data:
                data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Write what waits, as far as somebody reads it within a moment."""
        self._ending.set()
        self._waiting.set()
        self._thread.join(LAST_SECONDS)
        super().close()


def configure_logs(kind: str, level: int = logging.INFO) -> LineWriter:
    """Send messages of ``level`` and above to standard error, in the format ``kind``, a key of ``FORMATTERS``."""
    handler = LineWriter(STDERR)
    handler.setFormatter(FORMATTERS[kind]())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)  # which would be written at once
    return handler


def log(logger: logging.Logger, event: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Log ``event`` with its ``fields``."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={FIELDS: fields})


class Incidents:
    """What anybody who reaches the server may cause without end, of which few lines are written and all are counted.

    The first line after some that were left out says how many.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.num_seen = 0
        self._logger = logger
        self._num_written = self._num_left_out = 0
        self._period_end = 0.0

    def log(self, event: str, /, **fields: object) -> None:
        """Log ``event`` with its ``fields``, or leave it out."""
        self.num_seen += 1
        now = time.monotonic()
        if now >= self._period_end:
            self._num_written, self._period_end = 0, now + PERIOD_SECONDS
        if self._num_written >= INCIDENTS:
            self._num_left_out += 1
            return
        self._num_written += 1
        short = {key: value[:LONGEST] if isinstance(value, str) else value for key, value in fields.items()}
        left_out, self._num_left_out = self._num_left_out, 0
        log(self._logger, event, logging.WARNING, **short, **({"left_out": left_out} if left_out else {}))
