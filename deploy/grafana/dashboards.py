# ruff: noqa: E501, S608 - queries, each on a line
"""Writes the dashboards of Grafana: `just dashboards` after a change here; a test sees that the files are as this makes them.

Symbols and names come from the data. Flux is asked of the InfluxDB data source `egx-influxdb`, SQL of `egx-gold` (the Parquet
files of the gold layer, through DuckDB) or `egx-snowflake`; the SQL is the same for both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
INFLUXDB = {"type": "influxdb", "uid": "egx-influxdb"}
GOLD = {"type": "motherduck-duckdb-datasource", "uid": "egx-gold"}
SNOWFLAKE = {"type": "michelin-snowflake-datasource", "uid": "egx-snowflake"}
UP, DOWN = "#26a69a", "#ef5350"

# Flux

_FROM = 'from(bucket: v.defaultBucket) |> range(start: {start}) |> filter(fn: (r) => r._measurement == "{measurement}")'


def last_of(measurement: str, field: str, start: str = "-1h") -> str:
    return _FROM.format(start=start, measurement=measurement) + f' |> filter(fn: (r) => r._field == "{field}") |> last()'


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


_STALE = "\n".join(
    (
        "expected = " + last_of("market", "expected_at", "-30d") + " |> findRecord(fn: (key) => true, idx: 0)",
        'listed = from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "company" and '
        'r._field == "listed") |> last() |> filter(fn: (r) => r._value) |> group() |> findColumn(fn: (key) => true, column: "symbol")',
        'from(bucket: v.defaultBucket) |> range(start: -30d, stop: 1d) |> filter(fn: (r) => r._measurement == "stock_price" and '
        'r._field == "close") |> group(columns: ["symbol"]) |> last(column: "_time")',
        "  |> filter(fn: (r) => contains(value: r.symbol, set: listed))",
        "  |> map(fn: (r) => ({symbol: r.symbol, newest: r._time, stale: if float(v: int(v: r._time)) < expected._value * 1000000000.0 "
        "then 1 else 0}))",
        '  |> group() |> sort(columns: ["stale", "symbol"])',
    )
)


def leg_series(field: str, every: str = "last") -> str:
    return (
        "from(bucket: v.defaultBucket) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) |> filter(fn: (r) => "
        f'r._measurement == "pipeline" and r._field == "{field}") |> aggregateWindow(every: v.windowPeriod, fn: {every}, '
        'createEmpty: false) |> keep(columns: ["_time", "_value", "leg"])'
    )


def leg_last(field: str) -> str:
    return last_of("pipeline", field) + ' |> keep(columns: ["_time", "_value", "leg"])'


_RATE = (
    "from(bucket: v.defaultBucket) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) |> filter(fn: (r) => "
    'r._measurement == "pipeline" and r._field == "written") |> aggregateWindow(every: v.windowPeriod, fn: last, createEmpty: false)'
    ' |> derivative(unit: 1s, nonNegative: true) |> keep(columns: ["_time", "_value", "leg"])'
)
_SINCE = "(float(v: uint(v: now())) - float(v: uint(v: r._time))) / 1000000000.0"  # seconds
# A leg that was asked to end has nothing to report; one that failed, or just fell silent, has to be started.
_REPORTS = (
    'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "pipeline" and '
    '(r._field == "up" or r._field == "failed")) |> last()'
    ' |> pivot(rowKey: ["leg", "_time"], columnKey: ["_field"], valueColumn: "_value") |> group() |> map(fn: (r) => ({'
    'leg: r.leg, state: if r.up then "up" else if exists r.failed and r.failed then "failed" else "ended", seconds: '
    + _SINCE
    + "}))"
)
_DOWN = (
    _REPORTS + ' |> map(fn: (r) => ({leg: r.leg, _time: now(), _value: if r.state == "ended" then 0.0 else r.seconds}))'
    ' |> group(columns: ["leg"])'
)
REJECTED_SECONDS = 900
# A leg counts from its start; of one that started within the time, all that it counts is new.
_REJECTED = (
    f"from(bucket: v.defaultBucket) |> range(start: -{REJECTED_SECONDS}s) |> filter(fn: (r) => "
    'r._measurement == "pipeline" and (r._field == "rejected" or r._field == "uptime_seconds"))'
    ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") |> group(columns: ["leg"]) |> sort(columns: ["_time"])'
    " |> reduce(identity: {first: -1, last: 0, uptime: 0.0}, fn: (r, accumulator) => ({last: r.rejected, "
    "first: if accumulator.first < 0 then r.rejected else accumulator.first, uptime: r.uptime_seconds}))"
    " |> map(fn: (r) => ({leg: r.leg, _time: now(), "
    f"_value: if r.uptime < {REJECTED_SECONDS}.0 then r.last else r.last - r.first}}))"
)
# Only while the session whose bars must be there, by the calendar, is still open.
_SOURCE = "\n".join(
    (
        "open = " + last_of("market", "session_open", "-30d") + " |> findRecord(fn: (key) => true, idx: 0)",
        "expected = " + last_of("market", "expected_at", "-30d") + " |> findRecord(fn: (key) => true, idx: 0)",
        "seconds = float(v: uint(v: now())) / 1000000000.0",
        "live = exists open._value and open._value == 1 and seconds - expected._value < 43200.0",
        last_of("pipeline", "last_write_at", "-30d") + ' |> filter(fn: (r) => r.leg == "live")',
        "  |> map(fn: (r) => ({leg: r.leg, _time: now(), _value: if live then seconds - r._value else 0.0}))",
        '  |> group(columns: ["leg"])',
    )
)
_WORSE = (
    'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "quality" and r._field == "warn")'
    ' |> sort(columns: ["_time"]) |> difference() |> tail(n: 1) |> keep(columns: ["_time", "_value", "check"]) '
    '|> group(columns: ["check"])'
)

# Grafana


def target(query: str, source: dict[str, str]) -> dict[str, Any]:
    if source is INFLUXDB:
        return {"refId": "A", "datasource": source, "query": query}
    if source is GOLD:
        # The plugin reads `format` as a number (sqlutil.FormatQueryOption of grafana-plugin-sdk-go): 1 is a table.
        return {"refId": "A", "datasource": source, "rawSql": query, "rawQuery": True, "format": 1}
    return {"refId": "A", "datasource": source, "queryText": query, "queryType": "table"}


def panel(
    kind: str, title: str, query: str, box: tuple[int, int, int, int], source: dict[str, str] = INFLUXDB, **more: Any
) -> dict[str, Any]:
    """A panel. :arg box: x, y, width, height, of a grid 24 wide. :arg more: unit, decimals, options, overrides, min, ..."""
    x, y, width, height = box
    options, overrides = more.pop("options", {}), more.pop("overrides", [])
    description, transformations = more.pop("description", ""), more.pop("transformations", [])
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": [target(query, source)],
        "fieldConfig": {"defaults": more, "overrides": overrides},
        "options": options,
        "transformations": transformations,
    }


def column(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def values(*names: tuple[str, str]) -> list[dict[str, Any]]:
    """Shows 0, 1, ... as words, each with its colour."""
    return [
        {"type": "value", "options": {str(value): {"text": text, "color": color} for value, (text, color) in enumerate(names)}}
    ]


SIGNED = {"mode": "absolute", "steps": [{"color": DOWN, "value": None}, {"color": UP, "value": 0}]}
LIMIT = {"mode": "absolute", "steps": [{"color": UP, "value": None}, {"color": DOWN, "value": 1}]}
PERCENT = {"unit": "percent", "decimals": 2, "thresholds": SIGNED, "custom__cellOptions": {"type": "color-text"}}
CANDLES = {
    "mode": "candles+volume",
    "candleStyle": "candles",
    "colorStrategy": "open-close",
    "colors": {"up": UP, "down": DOWN},
    "fields": {key: key for key in ("open", "high", "low", "close", "volume")},
    "includeAllFields": False,
}
BARS = {"orientation": "horizontal", "displayMode": "basic", "reduceOptions": {"values": True, "calcs": []}}
VALUE = {"reduceOptions": {"values": True, "calcs": []}, "textMode": "value_and_name"}
ONE = {"reduceOptions": {"values": False, "calcs": ["lastNotNull"]}, "textMode": "value"}
BY_LEG = {"displayName": "${__field.labels.leg}"}


def titled(**titles: str) -> dict[str, Any]:
    """Puts a table's columns into this order, under these titles: InfluxDB hands them over by the alphabet."""
    order = {name: number for number, name in enumerate(titles)}
    return {"id": "organize", "options": {"indexByName": order, "renameByName": titles, "excludeByName": {}}}


def choice(name: str, query: str, source: dict[str, str] = INFLUXDB, *, many: bool = False, first: str = "") -> dict[str, Any]:
    """A choice above the panels. :arg first: what it opens with, where that is not the first by the alphabet."""
    return {
        "type": "query",
        "name": name,
        "label": name.capitalize(),
        "datasource": source,
        "query": {"query": query, "refId": name} if source is INFLUXDB else query,
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "current": {"text": "All", "value": "$__all"} if many else {"text": first, "value": first} if first else {},
    }


def tag_values(tag: str, where: str = "true") -> str:
    return (
        'import "influxdata/influxdb/schema"\nschema.tagValues(bucket: v.defaultBucket, tag: "' + tag + '", start: -30d, '
        f'predicate: (r) => r._measurement == "stock_price" and {where})'
    )


def dashboard(
    uid: str, title: str, panels: list[dict[str, Any]], choices: list[dict[str, Any]], since: str, refresh: str
) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["egx"],
        "timezone": "Africa/Cairo",
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "refresh": refresh,
        "time": {"from": since, "to": "now"},
        "templating": {"list": choices},
        "links": [{"type": "dashboards", "tags": ["egx"], "title": "EGX", "asDropdown": False}],
        "panels": [{"id": number, **one} for number, one in enumerate(panels, 1)],
    }


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
        panel("stat", "Rising", counted(">"), (4, 0, 3, 4), color={"mode": "fixed", "fixedColor": UP}, options=ONE),
        panel("stat", "Falling", counted("<"), (7, 0, 3, 4), color={"mode": "fixed", "fixedColor": DOWN}, options=ONE),
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
        panel(
            "bargauge", "Top gainers", movers(True), (0, 14, 6, 8), unit="percent", decimals=2, thresholds=SIGNED, options=BARS
        ),
        panel(
            "bargauge", "Top losers", movers(False), (6, 14, 6, 8), unit="percent", decimals=2, thresholds=SIGNED, options=BARS
        ),
        panel(
            "bargauge",
            "Performance over 30 days",
            _MONTH + ' |> group() |> sort(columns: ["month"], desc: true)',
            (12, 14, 6, 8),
            unit="percent",
            decimals=1,
            thresholds=SIGNED,
            options=BARS,
        ),
        panel(
            "bargauge",
            "Volume of the day",
            _VOLUME + ' |> group() |> sort(columns: ["volume"], desc: true)',
            (18, 14, 6, 8),
            unit="short",
            options=BARS,
        ),
        panel(
            "table",
            "Market",
            _SUMMARY,
            (0, 22, 16, 14),
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
            _STALE,
            (16, 22, 8, 14),
            description="Stale: without a bar of the session whose bars must be there by the exchange's calendar.",
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


def pipeline() -> dict[str, Any]:
    quality = (
        'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "quality") |> last()'
        ' |> pivot(rowKey: ["check"], columnKey: ["_field"], valueColumn: "_value") |> group()'
        ' |> keep(columns: ["check", "ok", "warn", "_time"]) |> sort(columns: ["check"])'
    )
    runs = (
        'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "warehouse")'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") |> group() |> sort(columns: ["_time"], desc: true)'
        ' |> keep(columns: ["_time", "ok", "seconds"]) |> limit(n: 20)'
    )
    panels = [
        panel("stat", "Records written", leg_last("written"), (0, 0, 6, 4), unit="locale", options=VALUE, **BY_LEG),
        panel(
            "stat",
            "Lag",
            leg_last("lag"),
            (6, 0, 6, 4),
            unit="locale",
            thresholds={"mode": "absolute", "steps": [{"color": UP, "value": None}, {"color": DOWN, "value": 10_000}]},
            options=VALUE,
            **BY_LEG,
        ),
        panel("stat", "Rejected", leg_last("rejected"), (12, 0, 6, 4), unit="locale", thresholds=LIMIT, options=VALUE, **BY_LEG),
        panel("stat", "Uptime", leg_last("uptime_seconds"), (18, 0, 6, 4), unit="s", options=VALUE, **BY_LEG),
        panel("timeseries", "Records a second", _RATE, (0, 4, 12, 8), unit="cps", **BY_LEG),
        panel("timeseries", "Lag", leg_series("lag", "max"), (12, 4, 12, 8), unit="short", **BY_LEG),
        panel(
            "timeseries",
            "Latency until it can be queried, p50",
            leg_series("latency_p50_seconds"),
            (0, 12, 8, 8),
            unit="s",
            **BY_LEG,
        ),
        panel(
            "timeseries",
            "Latency until it can be queried, p99",
            leg_series("latency_p99_seconds", "max"),
            (8, 12, 8, 8),
            unit="s",
            **BY_LEG,
        ),
        panel("timeseries", "Write time, p99", leg_series("write_p99_seconds", "max"), (16, 12, 8, 8), unit="s", **BY_LEG),
        panel("timeseries", "Records a write, median", leg_series("batch_records"), (0, 20, 8, 7), unit="short", **BY_LEG),
        panel("timeseries", "Epoch, median", leg_series("epoch_seconds"), (8, 20, 8, 7), unit="s", **BY_LEG),
        panel("timeseries", "Retries", leg_series("retries", "max"), (16, 20, 8, 7), unit="short", **BY_LEG),
        panel(
            "table",
            "Last report of each leg",
            _REPORTS,
            (0, 27, 8, 8),
            transformations=[titled(leg="Leg", state="State", seconds="Reported ago")],
            overrides=[column("Reported ago", unit="s", decimals=0)],
        ),
        panel(
            "table",
            "Data quality, last warehouse run",
            quality,
            (8, 27, 8, 8),
            overrides=[column("warn", thresholds=LIMIT, custom__cellOptions={"type": "color-text"})],
        ),
        panel("table", "Warehouse runs", runs, (16, 27, 8, 8), overrides=[column("seconds", unit="s")]),
    ]
    return dashboard("egx-pipeline", "EGX pipeline", panels, [], "now-6h", "10s")


def history(source: dict[str, str]) -> dict[str, Any]:
    name = "egx-history" if source is GOLD else "egx-history-snowflake"
    title = "EGX history" if source is GOLD else "EGX history (Snowflake)"
    daily = "gold.fct_stock_daily_prices"

    def sql(kind: str, title: str, query: str, box: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
        return panel(kind, title, query, box, source, **more)

    # Quoted, or Snowflake would hand the names over in upper case, and panels find columns by their very names.
    def columns(*names: str, **expressions: str) -> str:
        return ", ".join(
            f'{expression} AS "{name}"' for name, expression in ({name: name for name in names} | expressions).items()
        )

    counting = "SUM(CASE WHEN status = 'ok' THEN {} ELSE {} END)"
    time = columns(time="CAST(trade_date AS TIMESTAMP)")
    panels = [
        sql(
            "table",
            "Market snapshot",
            f"SELECT {columns('symbol', 'company_name', 'company_name_ar', 'sector', 'currency', 'trade_date', 'current_price', 'price_change_pct', 'volume', 'ma_7d', 'ma_30d', 'rsi_14', 'high_52w', 'low_52w', 'trend_signal', 'volume_signal')} FROM gold.vw_gold_market_snapshot ORDER BY price_change_pct DESC, symbol",
            (0, 0, 24, 11),
            overrides=[column("price_change_pct", **PERCENT), column("volume", unit="locale")],
        ),
        sql(
            "candlestick",
            "${symbol}",
            f"SELECT {time}, {columns('volume', open='open_price', high='high_price', low='low_price', close='close_price')} FROM {daily} WHERE symbol = '${{symbol}}' ORDER BY trade_date",
            (0, 11, 14, 11),
            options=CANDLES,
        ),
        sql(
            "timeseries",
            "${symbol}: adjusted close and averages",
            f"SELECT {time}, {columns('adj_close', 'ma_7d', 'ma_30d', 'ma_200d')} FROM gold.vw_gold_price_history WHERE symbol = '${{symbol}}' ORDER BY trade_date",
            (14, 11, 10, 11),
        ),
        sql(
            "bargauge",
            "Top movers",
            f"SELECT {columns('symbol', 'price_change_pct')} FROM gold.vw_gold_top_movers ORDER BY position, symbol LIMIT 10",
            (0, 22, 8, 9),
            unit="percent",
            thresholds=SIGNED,
            options=BARS,
        ),
        sql(
            "bargauge",
            "Volume leaders",
            f"SELECT {columns('symbol', 'volume')} FROM gold.vw_gold_volume_leaders ORDER BY position, symbol LIMIT 10",
            (8, 22, 8, 9),
            unit="short",
            options=BARS,
        ),
        sql(
            "timeseries",
            "Breadth",
            f"SELECT {time}, {columns('advancers', 'decliners', 'new_highs_52w', 'new_lows_52w')} FROM gold.vw_gold_market_breadth ORDER BY trade_date",
            (16, 22, 8, 9),
        ),
        sql(
            "timeseries",
            "${symbol}: RSI 14",
            f"SELECT {time}, {columns('rsi_14')} FROM {daily} WHERE symbol = '${{symbol}}' AND NOT rsi_14 IS NULL ORDER BY trade_date",
            (0, 31, 8, 8),
            min=0,
            max=100,
        ),
        sql(
            "timeseries",
            "Value traded, about",
            f"SELECT {time}, {columns('traded_value')} FROM gold.vw_gold_market_breadth ORDER BY trade_date",
            (8, 31, 8, 8),
            unit="currency:EGP",
        ),
        sql(
            "table",
            "Data quality",
            f"SELECT {columns('check_name', ok=counting.format(1, 0), to_look_at=counting.format(0, 1))} FROM gold.vw_gold_data_quality GROUP BY check_name ORDER BY check_name",
            (16, 31, 8, 8),
            overrides=[column("to_look_at", thresholds=LIMIT, custom__cellOptions={"type": "color-text"})],
        ),
    ]
    return dashboard(
        name,
        title,
        panels,
        [choice("symbol", f"SELECT {columns('symbol')} FROM gold.dim_stock WHERE trading_days > 0 ORDER BY symbol", source)],
        "now-1y",
        "5m",
    )


SOURCE_SECONDS = 1_200  # three polls (source.poll_seconds 300) and spare; the closing auction is quiet for 9 minutes
SCHEDULE_SECONDS = 108_000  # 30 hours, as `HEALTHY` of warehouse/schedule.py

# In files of alerts Grafana fills in `$NAME` from its environment: `$$` is a dollar sign.


def alert(
    uid: str,
    title: str,
    flux: str,
    summary: str,
    above: float,
    hold: str = "5m",
    no_data: str = "OK",
    severity: str = "critical",
) -> dict[str, Any]:
    """A rule that fires where the query's value is above a threshold."""
    return {
        "uid": uid,
        "title": title,
        "condition": "C",
        "for": hold,
        "noDataState": no_data,
        "execErrState": "Error",
        "annotations": {"summary": summary},
        "labels": {"team": "egx", "severity": severity},
        "data": [
            {
                "refId": "A",
                "datasourceUid": INFLUXDB["uid"],
                "relativeTimeRange": {"from": 3600, "to": 0},
                "model": {"refId": "A", "query": flux},
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "model": {"refId": "B", "type": "reduce", "expression": "A", "reducer": "last"},
            },
            {
                "refId": "C",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "C",
                    "type": "threshold",
                    "expression": "B",
                    "conditions": [{"evaluator": {"type": "gt", "params": [above]}}],
                },
            },
        ],
    }


def alerts() -> dict[str, Any]:
    # `v.defaultBucket` is there in alerts too; ranges are written out.
    # A quiet symbol may have no news for long: of one symbol only a whole session without a bar tells. The calendar waits for 45
    # minutes, and the alert for 15. All symbols together are never quiet: `egx-source-stale`.
    stale = _STALE + ' |> map(fn: (r) => ({_time: now(), symbol: r.symbol, _value: r.stale})) |> group(columns: ["symbol"])'
    rules = [
        alert(
            "egx-stale-symbol",
            "A symbol has no bar of the session",
            stale,
            "{{ $$labels.symbol }} has no bar of the session that the calendar expects: docs/operations.md, source not fetching",
            0,
            "15m",
        ),
        alert(
            "egx-lag",
            "A leg is behind",
            leg_last("lag"),
            "{{ $$labels.leg }} is over 10,000 messages behind: docs/operations.md, outputs not writing",
            10_000,
        ),
        alert(
            "egx-source-stale",
            "Nothing is fetched while the session is open",
            _SOURCE,
            "No bar of any symbol is new while the session is open: docs/operations.md, source not fetching",
            SOURCE_SECONDS,
        ),
        alert(
            "egx-dead-letters",
            "Messages are rejected",
            _REJECTED,
            "{{ $$labels.leg }} has rejected messages in the last quarter of an hour: `just dead-letters` lists them",
            0,
            "0s",
        ),
        alert(
            "egx-warehouse",
            "The warehouse run or an audit failed",
            last_of("warehouse", "ok", "-30d") + " |> map(fn: (r) => ({r with _value: 1 - r._value}))",
            "The last warehouse run failed: docs/operations.md, warehouse failing",
            0,
            "0s",
        ),
        alert(
            "egx-schedule-down",
            "The warehouse has not run",
            last_of("warehouse", "ok", "-30d") + " |> map(fn: (r) => ({target: r.target, _time: now(), _value: " + _SINCE + "}))"
            ' |> group(columns: ["target"])',
            "No warehouse run has ended in 30 hours, and one is due every night: start the schedule again",
            SCHEDULE_SECONDS,
            "5m",
            "Alerting",
        ),
        alert(
            "egx-quality",
            "More bars are to look at",
            _WORSE,
            "{{ $$labels.check }}: the last warehouse run found more to look at than the one before, see EGX history, Data quality",
            0,
            "0s",
            severity="warning",
        ),
        alert(
            "egx-process-down",
            "A process is down",
            _DOWN,
            "{{ $$labels.leg }} has not reported for over a minute, or failed: start it again",
            60,
            "1m",
            "Alerting",
        ),
    ]
    return {"apiVersion": 1, "groups": [{"orgId": 1, "name": "egx", "folder": "EGX", "interval": "1m", "rules": rules}]}


def files() -> dict[Path, str]:
    """Every file that is made, and its text."""
    made = {
        "dashboards/egx-live.json": live(),
        "dashboards/egx-pipeline.json": pipeline(),
        "dashboards/egx-history.json": history(GOLD),
        "dashboards/egx-history-snowflake.json": history(SNOWFLAKE),
        "provisioning/alerting/egx.json": alerts(),
    }
    return {HERE / name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(HERE))
