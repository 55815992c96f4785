"""Whether a leg runs and reports: `python -m dataflows.alive live`, for health checks.

Ends with 0 where it does, with 1 and one line where it does not, with 2 where the settings are wrong.
"""

from __future__ import annotations

import sys
import time

from dataflows.reports import is_alive, newest_by_leg, read_reports, span
from dataflows.settings import Settings, SettingsError, load


def failing(settings: Settings, leg: str, now: float) -> str | None:
    """Why a leg is not alive, None where it is. :arg now: seconds since 1970."""
    folder = settings.path(settings.metrics.folder)
    if (found := newest_by_leg(read_reports(folder)).get(leg)) is None:
        return f"{leg} has never reported in {folder}"
    newest, _ = found
    if is_alive(newest, now):
        return None
    if newest.error is not None:
        return f"{leg} ended: {newest.error}"
    return f"{leg} {'ended' if newest.ended else 'last reported'} {span(now - newest.updated_at)} ago"


def main(leg: str) -> int:
    try:
        why = failing(load(), leg, time.time())
    except SettingsError as error:
        print(f"egx: {error}", file=sys.stderr)
        return 2
    if why is not None:
        print(f"egx: {why}", file=sys.stderr)
    return 0 if why is None else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("egx: name one leg: python -m dataflows.alive ingest, live or archive")
    sys.exit(main(sys.argv[1]))
