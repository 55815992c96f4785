# ruff: noqa: E501 - queries, each on a line
"""The alerts, each a query and a limit."""

from __future__ import annotations

from typing import Any

from deploy.grafana.definitions.flux import REPORTS, SINCE, STALE, last_of, leg_last
from deploy.grafana.definitions.panels import INFLUXDB

SOURCE_SECONDS = 1_200  # three polls (source.poll_seconds 300) and spare; the closing auction is quiet for 9 minutes
SCHEDULE_SECONDS = 108_000  # 30 hours, as `HEALTHY` of dataflows/gold.py
REJECTED_SECONDS = 900

_DOWN = (
    REPORTS
    + ' |> map(fn: (r) => ({leg: r.leg, _time: now(), _value: if r.state == "ended" or r.state == "stopped" then 0.0 else r.seconds}))'
    ' |> group(columns: ["leg"])'
)
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
# A leg that somebody stopped may be forgotten; one that came to the end of its input, as a replay does, is done. The session is
# the one that was open, or the next, when any leg reported last: so it is known while all of them are stopped.
_STOPPED = "\n".join(
    (
        "opens = " + last_of("market", "opens_at", "-30d") + " |> findRecord(fn: (key) => true, idx: 0)",
        "closes = " + last_of("market", "closes_at", "-30d") + " |> findRecord(fn: (key) => true, idx: 0)",
        "seconds = float(v: uint(v: now())) / 1000000000.0",
        "open = exists opens._value and exists closes._value and seconds >= opens._value and seconds < closes._value",
        REPORTS,
        '  |> map(fn: (r) => ({leg: r.leg, _time: now(), _value: if open and r.state == "stopped" then r.seconds else 0.0}))',
        '  |> group(columns: ["leg"])',
    )
)
_WORSE = (
    'from(bucket: v.defaultBucket) |> range(start: -30d) |> filter(fn: (r) => r._measurement == "quality" and r._field == "warn")'
    ' |> sort(columns: ["_time"]) |> difference() |> tail(n: 1) |> keep(columns: ["_time", "_value", "check"]) '
    '|> group(columns: ["check"])'
)


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
    # `v.defaultBucket` is there in alerts too; ranges are written out. Grafana fills in `$NAME` from its environment: `$$` is a
    # dollar sign.
    # A quiet symbol may have no news for long: of one symbol only a whole session without a bar tells. The calendar waits for 45
    # minutes, and the alert for 15. All symbols together are never quiet: `egx-source-stale`.
    stale = STALE + ' |> map(fn: (r) => ({_time: now(), symbol: r.symbol, _value: r.stale})) |> group(columns: ["symbol"])'
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
            last_of("warehouse", "ok", "-30d") + " |> map(fn: (r) => ({target: r.target, _time: now(), _value: " + SINCE + "}))"
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
            "egx-stopped",
            "A leg is stopped while the session is open",
            _STOPPED,
            "{{ $$labels.leg }} was stopped, and the session is open: start it again",
            300,
            "0s",
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
