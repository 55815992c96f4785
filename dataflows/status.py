"""How the platform is: what each leg has done, how far it is behind, how fresh each store is, and what needs a look.

    python -m dataflows.status                # a table; ends with 1 where something needs a look
    python -m dataflows.status --json

Ends with 2 where it cannot tell: with wrong settings, or where a store does not answer; of the others it tells all the same.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from confluent_kafka import KafkaException
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connectors import kafka
from connectors.errors import ConnectorError
from dataflows import archived, dead_letters, process
from dataflows.archive import store
from dataflows.bar import CAIRO, Bar, decode_all
from dataflows.calendar import LONG, egx, expected_session
from dataflows.gold import Check, Schedule, newest_days, quality, read_schedule
from dataflows.live import MEASUREMENT
from dataflows.reports import Figures, Report, is_alive, newest_by_leg, read_reports, span
from dataflows.settings import EMBEDDED, Settings, SettingsError, load
from dataflows.symbols import company, trades_as

LAG_LIMIT = 10_000  # messages that a leg may be behind
NEWEST_MESSAGES = 500  # of each partition that are looked at


class Fresh(msgspec.Struct):
    """A symbol's newest daily or intraday bar in each store: its day in Cairo, None where it has none that is recent."""

    symbol: str
    kafka: dt.date | None = None
    """Among the newest messages; always None with the in-process broker."""
    live: dt.date | None = None
    archive: dt.date | None = None
    gold: dt.date | None = None
    ingested_at: dt.datetime | None = None
    """When the live store's was ingested, where that is known."""
    behind: tuple[str, ...] = ()
    """Which of `live` and `archive` lack the day that the calendar lets expect."""


class Status(msgspec.Struct):
    """Everything at one moment; `attention` says what needs a look, a line each."""

    at: dt.datetime
    expected: dt.date
    """The session whose bars must be there by now."""
    reports: list[Report]
    lag: dict[str, int]
    """Leg -> messages that its consumer group has yet to read, as the broker says, or, of the in-process one, its process."""
    dead_letters: int | None
    fresh: list[Fresh]
    quality: list[Check]
    schedule: Schedule | None
    """What the warehouse's schedule did last, None where there is none."""
    attention: list[str]
    unknown: dict[str, str]
    """Which of `STORES` did not answer, and why."""

    def figures(self) -> dict[str, tuple[Report, Figures]]:
        """Leg -> the newest report that has it, and its figures."""
        return newest_by_leg(self.reports)


STORES = {
    "reports": "the legs' reports",
    "kafka": "Kafka",
    "live": "the live store",
    "archive": "the archive",
    "gold": "gold",
    "schedule": "the warehouse's schedule",
}
"""What is asked -> what people call it."""


@contextmanager
def asking(name: str, unknown: dict[str, str]) -> Iterator[None]:
    """What fails in the block becomes the reason why one of `STORES` is unknown."""
    try:
        yield
    except (ConnectorError, KafkaException, sqlite3.Error, msgspec.DecodeError, OSError) as error:
        unknown[name] = str(error)


def status(settings: Settings, now: dt.datetime) -> Status:
    """Asks the processes' files, the broker and the stores; none of them is held up by it.

    One that does not answer is among what is unknown. Raises SettingsError where the settings are wrong.
    """
    found = Status(now, expected_session(egx(), now).date, [], {}, None, [], [], None, [], {})
    with asking("reports", found.unknown):
        found.reports = read_reports(settings.path(settings.metrics.folder))
    with asking("gold", found.unknown):
        found.quality = quality()
    with asking("schedule", found.unknown):
        found.schedule = read_schedule()
    newest: dict[str, dt.date] = {}
    if settings.kafka.bootstrap_servers == EMBEDDED:
        found.lag = {leg: figures.lag for leg, (_, figures) in found.figures().items() if figures.lag is not None}
    else:
        with asking("kafka", found.unknown):
            client = process.kafka_client(settings)
            ends = kafka.end_offsets(client, settings.kafka.topic)
            for leg in ("live", "archive"):
                read = kafka.committed_offsets(client, getattr(settings, leg).group, settings.kafka.topic)
                found.lag[leg] = sum(max(0, end - max(read[p], 0)) for p, end in ends.items())
            found.dead_letters = len(dead_letters.open_letters(dead_letters.read(client, settings.kafka.dead_letter_topic)))
            newest = from_kafka(settings, {p: max(0, end - NEWEST_MESSAGES) for p, end in ends.items()}, now)
    found.fresh = freshness(settings, found.expected, newest, now, found.unknown)
    found.attention = list(attention(found))
    return found


def freshness(
    settings: Settings, expected: dt.date, kafka_days: dict[str, dt.date], now: dt.datetime, unknown: dict[str, str]
) -> list[Fresh]:
    """Each symbol's newest bar in each store; those of source.symbols that are not delisted must have the expected one.

    :arg unknown: gets the stores that do not answer, and why.
    """
    live: Newest = {}
    archive: dict[str, dt.date] = {}
    gold: dict[str, dt.date] = {}
    with asking("live", unknown):
        live = from_sqlite(settings) if settings.live.store == "sqlite" else from_influxdb(settings)
    symbols = sorted({*settings.source.symbols, *live})
    with asking("archive", unknown):
        archive = archived.newest_days(
            store(settings), settings.source.exchange, symbols, expected, now, settings.archive.parallel
        )
    with asking("gold", unknown):
        gold = newest_days()
    demanded: set[str] = set()
    if settings.source.kind != "simulated" and settings.source.interval not in LONG:
        demanded = {symbol for symbol in settings.source.symbols if company(symbol).listed}

    def fresh(symbol: str) -> Fresh:
        day, ingested_at = live.get(symbol, (None, None))
        found = Fresh(symbol, kafka_days.get(symbol), day, archive.get(symbol), gold.get(trades_as(symbol)), ingested_at)
        if symbol in demanded:
            days = {"live": found.live, "archive": found.archive}
            found.behind = tuple(name for name, day in days.items() if name not in unknown and (day is None or day < expected))
        return found

    return [fresh(symbol) for symbol in symbols]


def from_kafka(settings: Settings, starts: dict[int, int], now: dt.datetime) -> dict[str, dt.date]:
    """Symbol -> the day of its newest bar in the topic, from an offset of each partition on."""
    values = [
        message.value() or b"" for message in dead_letters.read(process.kafka_client(settings), settings.kafka.topic, starts)
    ]
    found: dict[str, dt.date] = {}
    for bar in decode_all(values, now):
        if isinstance(bar, Bar) and bar.interval not in LONG:
            day = cairo_date(bar.datetime)
            found[bar.symbol] = max(day, found.get(bar.symbol, day))
    return found


Newest = dict[str, tuple[dt.date | None, dt.datetime | None]]


def from_sqlite(settings: Settings) -> Newest:
    """Symbol -> the day of its newest bar, and when that was ingested, in the SQLite file."""
    path = settings.path(settings.live.sqlite)
    if not path.exists():
        return {}
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        rows = connection.execute(
            f"SELECT symbol, MAX(datetime), MAX(ingestion_timestamp) FROM {MEASUREMENT} "  # noqa: S608 - ours
            f"WHERE interval NOT IN {LONG} GROUP BY symbol"
        ).fetchall()
    finally:
        connection.close()
    return {
        symbol: (cairo_date(dt.datetime.fromisoformat(start)), dt.datetime.fromisoformat(ingested) if ingested else None)
        for symbol, start, ingested in rows
    }


def from_influxdb(settings: Settings) -> Newest:
    """The same of InfluxDB, which does not keep when a bar was ingested."""
    server = process.influxdb(settings)
    told = " and ".join(f'r.interval != "{interval}"' for interval in LONG)
    flux = (
        f'from(bucket: "{settings.influxdb.bucket}") |> range(start: -{int(settings.influxdb.retain_days)}d, stop: 1d)'
        f' |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "close" and {told})'
        ' |> last() |> group(columns: ["symbol"]) |> sort(columns: ["_time"]) |> last() |> keep(columns: ["symbol", "_time"])'
    )
    try:
        return {row["symbol"]: (cairo_date(row["_time"]), None) for row in server.query(flux)}
    finally:
        server.close()


def cairo_date(time: dt.datetime) -> dt.date:
    return time.astimezone(CAIRO).date()


def attention(found: Status) -> Sequence[str]:
    """What needs a look."""
    said = [f"{STORES[name]} cannot be asked: {why}" for name, why in found.unknown.items()]
    now = found.at.timestamp()
    for leg, (report, _) in found.figures().items():
        if report.error is not None:
            said.append(f"{leg} ended: {report.error}")
        elif not report.ended and not is_alive(report, now):
            said.append(f"{leg} has not reported for {span(now - report.updated_at)}: start it again")
    said += [
        f"{leg} has rejected {figures.rejected:,} messages: its log says why"
        for leg, (_, figures) in found.figures().items()
        if figures.rejected and found.dead_letters is None  # the in-process broker keeps no dead letters
    ]
    if not found.reports and "reports" not in found.unknown:
        said.append("no leg has reported yet: start them, as docs/operations.md says")
    said += [f"{leg} is {lag:,} messages behind" for leg, lag in found.lag.items() if lag > LAG_LIMIT]
    if found.dead_letters:
        said.append(f"{found.dead_letters:,} open dead letters: `just dead-letters` lists them")
    for name, title in (("live", "live store"), ("archive", "archive")):
        if behind := [fresh.symbol for fresh in found.fresh if name in fresh.behind]:
            said.append(f"the {title} has no bar of {found.expected} of {', '.join(behind)}")
    said += [
        f"data quality: {check.warn_newest:,} of the newest day's {check.name} to look at, in gold.vw_gold_data_quality"
        for check in found.quality
        if check.warn_newest
    ]
    if found.schedule and (why := found.schedule.failing(found.at)):
        said.append(why)
    return said


def legs_table(found: Status) -> Table:
    now = found.at.timestamp()
    table = Table(title="Legs", title_justify="left", pad_edge=False)
    for header in ("Leg", "State", "Up"):
        table.add_column(header)
    for header in ("Read", "Written", "Rejected", "Retries", "Lag", "p50", "p99", "Last write"):
        table.add_column(header, justify="right")
    for leg, (report, figures) in found.figures().items():
        alive = is_alive(report, now)
        state = "[green]runs[/]" if alive else "ended" if report.ended and report.error is None else "[red]down[/]"
        lag = found.lag.get(leg)
        table.add_row(
            leg,
            state,
            span((now if alive else report.updated_at) - report.started_at),
            f"{figures.read:,}",
            f"{figures.written:,}",
            f"{figures.rejected:,}",
            f"{figures.retries:,}",
            "" if lag is None else f"{lag:,}",
            "" if figures.latency_p50_seconds is None else span(figures.latency_p50_seconds),
            "" if figures.latency_p99_seconds is None else span(figures.latency_p99_seconds),
            "" if figures.last_write_at is None else f"{span(now - figures.last_write_at)} ago",
        )
    return table


def fresh_table(found: Status) -> Table:
    title = f"Newest daily or intraday bar of each symbol; the live store and the archive should have {found.expected}"
    table = Table(title=title, title_justify="left", pad_edge=False)
    for header in ("Symbol", "Kafka", "Live store", "Ingested", "Archive", "Gold"):
        table.add_column(header)

    def day(fresh: Fresh, name: str) -> str:
        text = "unknown" if name in found.unknown else f"{getattr(fresh, name) or 'none'}"
        return f"[red]{text}[/]" if name in fresh.behind else text

    for fresh in found.fresh:
        ago = "" if fresh.ingested_at is None else f"{span((found.at - fresh.ingested_at).total_seconds())} ago"
        table.add_row(fresh.symbol, f"{fresh.kafka or ''}", day(fresh, "live"), ago, day(fresh, "archive"), f"{fresh.gold or ''}")
    return table


def show(found: Status, console: Console) -> None:
    if found.reports:
        sources = {report.source for report in found.reports if report.source}
        console.print(legs_table(found))
        console.print("p50, p99: from a bar's ingestion until it can be queried." + "".join(f" Source: {s}." for s in sources))
        console.print()
    console.print(fresh_table(found))
    if found.quality:
        console.print("\nData quality (warehouse):")
        for check in found.quality:
            console.print(f"  {check.title}: {check.ok:,} ok, {check.warn:,} to look at")
    console.print()
    for line in found.attention:
        console.print(f"[red]![/] {escape(line)}", highlight=False)
    if not found.attention:
        console.print("[green]all well[/]")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m dataflows.status", description="How the platform is.")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    chosen = parser.parse_args(arguments)
    try:
        settings = load()
        found = status(settings, process.now())
    except SettingsError as error:
        print(f"egx: {error}", file=sys.stderr)
        return 2
    if chosen.json:
        print(msgspec.json.encode(found).decode())
    else:
        show(found, Console(width=None if sys.stdout.isatty() else 130))
    return 2 if found.unknown else 1 if found.attention else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
