"""The log of a process on its standard error: lines for people, or a JSON object a line for a collector."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

log = logging.getLogger("dataflows")


def configure(form: str, legs: Sequence[str]) -> None:
    """Sets up logging.

    :arg form: "text" or "json". JSON objects have timestamp, level, logger, event and leg, and, where they apply, symbol,
        partition and offset (a record's `extra`).
    :arg legs: those of this process: the `leg` of what no single one says.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json(",".join(legs)) if form == "json" else logging.Formatter("egx: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("botocore").setLevel(logging.WARNING)


def _json(legs: str) -> logging.Formatter:
    import structlog  # here, for those who want it: its import is a quarter of a leg's start

    def with_leg(logger: Any, method: str, event: Any) -> Any:
        event.setdefault("leg", legs)
        return event

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            with_leg,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def in_json() -> bool:
    """Whether this process logs JSON."""
    return any(type(handler.formatter).__module__.startswith("structlog") for handler in logging.getLogger().handlers)


def say_error(text: str, error: BaseException | None = None) -> None:
    """The last words of a process that somebody has to mend. :arg error: a defect, whose traceback is wanted."""
    if in_json():
        log.error("%s", text, exc_info=error)
    else:
        if error is not None:
            traceback.print_exception(error)
        print(f"\negx: {text}", file=sys.stderr)


def say_progress(line: str) -> None:
    """A progress line, in one write: what other threads and processes print does not come in between."""
    if in_json():
        log.info("%s", line)
    else:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
