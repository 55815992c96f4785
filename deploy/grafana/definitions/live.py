"""EGX live: the market and candles from InfluxDB. Symbols and names come from the data."""

from __future__ import annotations

from typing import Any

from deploy.grafana.definitions.flux import STALE, last_of
from deploy.grafana.definitions.panels import (
    BARS,
    CANDLES,
    DOWN,
    ONE,
    PERCENT,
    SIGNED,
    UP,
    choice,
    column,
    dashboard,
    panel,
    titled,
    values,
)

OF_DAYS = "Of Daily bars, whichever interval is chosen: without them there is no data here."
_BARS = (
    "from(bucket: v.defaultBucket) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) |> filter(fn: (r) => "
    'r._measurement == "stock_price" and r.exchange == "${exchange}" and r.interval == "${interval}")'
)
_DAILY = (
    'from(bucket: v.defaultBucket) |> range(start: -30d, stop: 1d) |> filter(fn: (r) => r._measurement == "stock_price" and '
    'r.exchange == "${exchange}" and r.interval == "Daily" and r._field == "close") |> group(columns: ["symbol"]) '
    '|> sort(columns: ["_time"])'
)
# The change since the close before, in percent: `difference` leaves the new close beside it.
_CHANGE = (
    _DAILY + ' |> duplicate(column: "_value", as: "close") |> difference() |> tail(n: 1)'
    " |> map(fn: (r) => ({symbol: r.symbol, _time: r._time, last: r.close, change: 100.0 * r._value / (r.close - r._value)}))"
)
_MONTH = (
    _DAILY + " |> reduce(identity: {first: 0.0, last: 0.0}, fn: (r, accumulator) => "
    "({first: if accumulator.first == 0.0 then r._value else accumulator.first, last: r._value}))"
    " |> map(fn: (r) => ({symbol: r.symbol, month: 100.0 * (r.last / r.first - 1.0)}))"
)
_VOLUME = (
    'from(bucket: v.defaultBucket) |> range(start: -30d, stop: 1d) |> filter(fn: (r) => r._measurement == "stock_price" and '
    'r.exchange == "${exchange}" and r.interval == "Daily" and r._field == "volume") |> group(columns: ["symbol"]) '
    '|> sort(columns: ["_time"]) |> last() |> map(fn: (r) => ({symbol: r.symbol, volume: r._value}))'
)
_COMPANIES = (
    'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "company") |> last()'
    ' |> pivot(rowKey: ["symbol"], columnKey: ["_field"], valueColumn: "_value") |> group(columns: ["symbol"])'
    ' |> keep(columns: ["symbol", "name", "name_ar", "sector", "currency"])'
)
_SUMMARY = "\n".join(
    (
        'import "join"',
        f"change = {_CHANGE}",
        f"month = {_MONTH}",
        f"volume = {_VOLUME}",
        f"companies = {_COMPANIES}",
        "withMonth = join.left(left: change, right: month, on: (l, r) => l.symbol == r.symbol,",
        "  as: (l, r) => ({l with month: r.month}))",
        "withVolume = join.left(left: withMonth, right: volume, on: (l, r) => l.symbol == r.symbol,",
        "  as: (l, r) => ({l with volume: r.volume}))",
        "join.left(left: withVolume, right: companies, on: (l, r) => l.symbol == r.symbol,",
        "  as: (l, r) => ({symbol: l.symbol, company: r.name, company_ar: r.name_ar, sector: r.sector, currency: r.currency,",
        "    last: l.last, change: l.change, month: l.month, volume: l.volume, day: l._time}))",
        '  |> group() |> sort(columns: ["symbol"])',
    )
)


def counted(sign: str) -> str:
    """How many changes are so; not a count of what a filter leaves, which would be no row where none is."""
    one = f"if r.change {sign} 0.0 then 1 else 0"
    return (
        _CHANGE
        + " |> group() |> reduce(identity: {_value: 0}, fn: (r, accumulator) => ({_value: accumulator._value + ("
        + one
        + ")}))"
    )


def movers(descending: bool) -> str:
    sign = ">" if descending else "<"
    order = str(descending).lower()
    return (
        _CHANGE
        + f' |> group() |> filter(fn: (r) => r.change {sign} 0.0) |> sort(columns: ["change"], desc: {order}) |> limit(n: 5)'
        ' |> keep(columns: ["symbol", "change"])'
    )


def tag_values(tag: str, where: str = "true") -> str:
    return (
        'import "influxdata/influxdb/schema"\nschema.tagValues(bucket: v.defaultBucket, tag: "' + tag + '", start: -30d, '
        f'predicate: (r) => r._measurement == "stock_price" and {where})'
    )


def ranking(title: str, query: str, box: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    """A bar for each symbol. :arg more: as of `panel`."""
    return panel("bargauge", title, query, box, description=OF_DAYS, options=BARS, **more)


def live() -> dict[str, Any]:
    chosen = _BARS + ' |> filter(fn: (r) => r._field == "close" and r.symbol =~ /^(${symbols:pipe})$/)'
    one = _BARS + ' |> filter(fn: (r) => r.symbol == "${symbol}")'
    panels = [
        panel(
            "stat",
            "Session",
            last_of("market", "session_open"),
            (0, 0, 4, 4),
            mappings=values(("closed", "gray"), ("open", UP)),
            options=ONE,
        ),
        panel(
            "stat",
            "Rising",
            counted(">"),
            (4, 0, 3, 4),
            description=OF_DAYS,
            color={"mode": "fixed", "fixedColor": UP},
            options=ONE,
        ),
        panel(
            "stat",
            "Falling",
            counted("<"),
            (7, 0, 3, 4),
            description=OF_DAYS,
            color={"mode": "fixed", "fixedColor": DOWN},
            options=ONE,
        ),
        panel(
            "stat",
            "Latency, p99",
            last_of("pipeline", "latency_p99_seconds") + ' |> filter(fn: (r) => r.leg == "live")',
            (10, 0, 4, 4),
            unit="s",
            options=ONE,
            description="From a bar's ingestion until this dashboard can show it.",
        ),
        panel(
            "stat",
            "Newest bar written",
            last_of("pipeline", "last_write_at", "-1d")
            + ' |> filter(fn: (r) => r.leg == "live") |> map(fn: (r) => ({r with _value: 1000.0 * r._value}))',
            (14, 0, 5, 4),
            unit="dateTimeFromNow",
            options=ONE,
        ),
        panel(
            "stat",
            "Symbols",
            _CHANGE + ' |> group() |> count(column: "last") |> rename(columns: {last: "_value"})',
            (19, 0, 5, 4),
            description=OF_DAYS,
            options=ONE,
        ),
        panel(
            "timeseries",
            "Prices",
            # No more points than the panel has room for: a month of minutes has thousands a symbol.
            chosen + ' |> aggregateWindow(every: v.windowPeriod, fn: last, createEmpty: false, timeSrc: "_start")'
            ' |> keep(columns: ["_time", "_value", "symbol"])',
            (0, 4, 12, 10),
            displayName="${__field.labels.symbol}",
        ),
        panel(
            "candlestick",
            "${symbol}",
            one + ' |> filter(fn: (r) => r._field == "open" or r._field == "high" or r._field == "low" or r._field == "close"'
            ' or r._field == "volume") |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
            ' |> group() |> sort(columns: ["_time"]) |> keep(columns: ["_time", "open", "high", "low", "close", "volume"])',
            (12, 4, 12, 10),
            options=CANDLES,
        ),
        ranking("Top gainers", movers(True), (0, 14, 6, 8), unit="percent", decimals=2, thresholds=SIGNED),
        ranking("Top losers", movers(False), (6, 14, 6, 8), unit="percent", decimals=2, thresholds=SIGNED),
        ranking(
            "Performance over 30 days",
            _MONTH + ' |> group() |> sort(columns: ["month"], desc: true)',
            (12, 14, 6, 8),
            unit="percent",
            decimals=1,
            thresholds=SIGNED,
        ),
        ranking(
            "Volume of the day", _VOLUME + ' |> group() |> sort(columns: ["volume"], desc: true)', (18, 14, 6, 8), unit="short"
        ),
        panel(
            "table",
            "Market",
            _SUMMARY,
            (0, 22, 16, 14),
            description=OF_DAYS,
            transformations=[
                titled(
                    symbol="Symbol",
                    company="Company",
                    company_ar="الشركة",
                    last="Last",
                    change="Change",
                    month="30 days",
                    volume="Volume",
                    currency="Currency",
                    sector="Sector",
                    day="Day",
                )
            ],
            overrides=[
                column("Change", **PERCENT),
                column("30 days", **PERCENT),
                column("Volume", unit="locale"),
                column("Last", decimals=3),
                column("Day", unit="time:YYYY-MM-DD"),
            ],
        ),
        panel(
            "table",
            "Newest bar of each symbol",
            STALE,
            (16, 22, 8, 14),
            description="Stale: without a daily or intraday bar of the session that must be there by the exchange's calendar.",
            transformations=[titled(symbol="Symbol", newest="Newest bar", stale="State")],
            overrides=[
                column(
                    "State", mappings=values(("fresh", UP), ("stale", DOWN)), custom__cellOptions={"type": "color-background"}
                ),
                column("Newest bar", unit="dateTimeAsLocal"),
            ],
        ),
    ]
    choices = [
        choice("exchange", tag_values("exchange")),
        choice("interval", tag_values("interval", 'r.exchange == "${exchange}"'), first="Daily"),
        choice("symbol", tag_values("symbol", 'r.exchange == "${exchange}"')),
        choice("symbols", tag_values("symbol", 'r.exchange == "${exchange}"'), many=True),
    ]
    return dashboard("egx-live", "EGX live", panels, choices, "now-30d", "5s")
