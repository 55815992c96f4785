# ruff: noqa: E501 - queries, each on a line
"""Queries in Flux that more than one dashboard or alert asks."""

from __future__ import annotations

_FROM = 'from(bucket: v.defaultBucket) |> range(start: {start}) |> filter(fn: (r) => r._measurement == "{measurement}")'


def last_of(measurement: str, field: str, start: str = "-1h") -> str:
    return _FROM.format(start=start, measurement=measurement) + f' |> filter(fn: (r) => r._field == "{field}") |> last()'


def leg_last(field: str) -> str:
    return last_of("pipeline", field) + ' |> keep(columns: ["_time", "_value", "leg"])'


# A weekly or monthly bar starts before the session: it does not tell. First the last of each series, which InfluxDB finds without
# reading them; of a symbol's, the newest: `group` puts one series after the other, whatever their times.
STALE = "\n".join(
    (
        "expected = " + last_of("market", "expected_at", "-30d") + " |> findRecord(fn: (key) => true, idx: 0)",
        'awaited = from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "company" and '
        'r._field == "expected") |> last() |> filter(fn: (r) => r._value) |> group() |> findColumn(fn: (key) => true, column: "symbol")',
        'from(bucket: v.defaultBucket) |> range(start: -30d, stop: 1d) |> filter(fn: (r) => r._measurement == "stock_price" and '
        'r._field == "close" and r.interval != "Weekly" and r.interval != "Monthly") |> last() |> group(columns: ["symbol"]) '
        '|> sort(columns: ["_time"]) |> last()',
        "  |> filter(fn: (r) => contains(value: r.symbol, set: awaited))",
        "  |> map(fn: (r) => ({symbol: r.symbol, newest: r._time, stale: if float(v: int(v: r._time)) < expected._value * 1000000000.0 "
        "then 1 else 0}))",
        '  |> group() |> sort(columns: ["stale", "symbol"])',
    )
)
SINCE = "(float(v: uint(v: now())) - float(v: uint(v: r._time))) / 1000000000.0"  # seconds
# A leg that was asked to end has nothing to report; one that failed, or just fell silent, has to be started.
REPORTS = (
    'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "pipeline" and '
    '(r._field == "up" or r._field == "failed" or r._field == "stopped")) |> last()'
    ' |> pivot(rowKey: ["leg", "_time"], columnKey: ["_field"], valueColumn: "_value") |> group() |> map(fn: (r) => ({'
    'leg: r.leg, state: if r.up then "up" else if exists r.failed and r.failed then "failed" else if exists r.stopped and r.stopped then "stopped" else "ended", seconds: '
    + SINCE
    + "}))"
)
