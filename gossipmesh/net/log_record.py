"""A log record as the fields of a JSON line: the same for the agent's log and the engine's.

Ends at the encoding, which is whoever writes's.
"""

import logging
from datetime import UTC, datetime
from typing import Any


def shown(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    """Return time (UTC), level, message, the record's own fields, and a traceback if it has one."""
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "time": time.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
    }
    line.update(getattr(record, "fields", {}))
    if record.exc_info:
        line["traceback"] = formatter.formatException(record.exc_info)
    return line
