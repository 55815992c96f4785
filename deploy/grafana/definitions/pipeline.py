# ruff: noqa: E501 - queries, each on a line
"""EGX pipeline: what the legs and the warehouse do, from their figures in InfluxDB."""

from __future__ import annotations

from typing import Any

from deploy.grafana.definitions.flux import REPORTS, leg_last
from deploy.grafana.definitions.panels import BY_LEG, DOWN, LIMIT, UP, VALUE, column, dashboard, panel, titled


def leg_series(field: str, every: str = "last") -> str:
    return (
        "from(bucket: v.defaultBucket) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) |> filter(fn: (r) => "
        f'r._measurement == "pipeline" and r._field == "{field}") |> aggregateWindow(every: v.windowPeriod, fn: {every}, '
        'createEmpty: false) |> keep(columns: ["_time", "_value", "leg"])'
    )


_RATE = (
    "from(bucket: v.defaultBucket) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) |> filter(fn: (r) => "
    'r._measurement == "pipeline" and r._field == "written") |> aggregateWindow(every: v.windowPeriod, fn: last, createEmpty: false)'
    ' |> derivative(unit: 1s, nonNegative: true) |> keep(columns: ["_time", "_value", "leg"])'
)


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
            REPORTS,
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
