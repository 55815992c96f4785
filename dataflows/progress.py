"""What a process has done so far, and the line that says so."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dataflows.logs import say_progress


@dataclass
class Progress:
    """Counts since the start; every leg of the process adds to its own."""

    legs: tuple[str, ...] = ("ingest", "live", "archive")
    """The legs of this process: the line is about these."""
    source: str = ""
    """What the bars are, for people: above all whether they are real."""
    polled: int = 0
    unchanged: int = 0
    published: int = 0
    live: int = 0
    expired: int = 0
    archived: int = 0
    rejected: int = 0
    lag: dict[str, dict[int, int]] = field(default_factory=dict)
    """Consumer group -> partition -> messages it has yet to read."""

    def handled(self) -> int:
        return max(self.polled, self.live, self.archived)

    def line(self, per_second: float) -> str:
        return f"{self.counts()}  {per_second:,.0f}/s" + (f"  [{self.source}]" if self.source else "")

    def counts(self) -> str:
        parts = []
        if "ingest" in self.legs:
            unchanged = f" ({self.unchanged:,} unchanged)" if self.unchanged else ""
            parts += [f"bars read {self.polled:,}", f"published {self.published:,}{unchanged}"]
        if "live" in self.legs:
            expired = f" ({self.expired:,} older than the store keeps)" if self.expired else ""
            parts.append(f"live {self.live:,}{expired}")
        if "archive" in self.legs:
            parts.append(f"archived {self.archived:,}")
        if self.lag:
            parts += [f"rejected {self.rejected:,}", f"lag {sum(sum(lags.values()) for lags in self.lag.values()):,}"]
        return "  ".join(parts)


class Reporter:
    """Prints the progress every few seconds: in place on a terminal, else a line each time."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        """:arg seconds: from line to line; 0 prints none."""
        self._progress, self._seconds = progress, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._started = time.monotonic()

    def start(self) -> None:
        if self._seconds:
            self._thread.start()

    def end(self) -> None:
        """Prints the last line, with the rate over the whole run."""
        if self._seconds and not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            rate = self._progress.handled() / max(time.monotonic() - self._started, 1e-3)
            say_progress(self._progress.line(rate))

    def silence(self) -> None:
        """Prints no more: what comes next is to be the last line."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def _run(self) -> None:
        if sys.stderr.isatty():
            # Here, for terminals: its import is a tenth of a leg's start.
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as screen:
                for _, line in self._lines(0.5):
                    screen.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            shown = ""
            for counts, line in self._lines(self._seconds):
                if counts != shown:  # an idle process is silent
                    say_progress(line)
                shown = counts

    def _lines(self, seconds: float) -> Iterator[tuple[str, str]]:
        """The counts, and the line, which is made after them: what changes in between is in the next line too."""
        before, at = self._progress.handled(), time.monotonic()
        while not self._ended.wait(seconds):
            handled, now = self._progress.handled(), time.monotonic()
            yield self._progress.counts(), self._progress.line((handled - before) / (now - at))
            before, at = handled, now


class Handover:
    """What ingest has written and how far the readers of the same process are; one process holds all three legs.

    Ends the readers once the source has ended and they have read what came of it; with the in-process broker, which forgets
    what it cannot hold, it also makes the source wait for the readers. A `connectors.kafka.Reader`. Its callers may be
    different threads.
    """

    UNREAD = 8_000  # messages of a partition; the in-process broker holds about 5 MB of it, 20,000 bars uncompressed

    def __init__(self, progress: Progress, groups: tuple[str, ...], *, bounded: bool, ends: Mapping[int, int] = {}) -> None:
        """
        :arg groups: the readers of this process.
        :arg bounded: whether the broker forgets what is not read soon.
        :arg ends: where the topic ends at the start; the readers read at least up to there.
        """
        self._lock = threading.Lock()
        self._progress, self._groups, self._bounded = progress, groups, bounded
        self.on_committed: Callable[[], None] = lambda: None
        self._source_ended = False
        self._written = dict(ends)
        self._read: dict[str, dict[int, int]] = {group: {} for group in groups}
        self._committed: dict[str, dict[int, int]] = {group: {} for group in groups}

    def source_ended(self) -> None:
        """The source hands out no more: what it has handed out is counted in `Progress.polled`."""
        self._source_ended = True

    def written(self, ends: Mapping[int, int]) -> None:
        with self._lock:
            self._written.update(ends)

    def read(self, group: str, positions: Mapping[int, int], lags: Mapping[int, int]) -> None:
        with self._lock:
            self._read.setdefault(group, {}).update(positions)
            self._progress.lag.setdefault(group, {}).update(lags)

    def committed(self, group: str, offsets: Mapping[int, int]) -> None:
        with self._lock:
            self._committed.setdefault(group, {}).update(offsets)
        self.on_committed()

    def ready(self) -> bool:
        """Whether the source may go on."""
        with self._lock:
            return not self._bounded or all(
                end - min(self._read[group].get(partition, 0) for group in self._groups) < self.UNREAD
                for partition, end in self._written.items()
            )

    def end(self) -> dict[int, int] | None:
        """Where the readers end: partition -> offset, None while more may come."""
        progress = self._progress
        if self._source_ended and progress.polled == progress.unchanged + progress.published:
            with self._lock:
                return dict(self._written)
        return None

    def durable(self, ends: Mapping[int, int]) -> bool:
        """Whether what was written up to `ends` survives this process: on a real broker at once, on the in-process one
        when every group has committed it."""
        with self._lock:
            return not self._bounded or all(
                self._committed[group].get(partition, 0) >= end for group in self._groups for partition, end in ends.items()
            )
