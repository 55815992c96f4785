"""What dashboards are made of: data sources, panels, choices, looks."""

from __future__ import annotations

from typing import Any

INFLUXDB = {"type": "influxdb", "uid": "egx-influxdb"}
GOLD = {"type": "motherduck-duckdb-datasource", "uid": "egx-gold"}
SNOWFLAKE = {"type": "michelin-snowflake-datasource", "uid": "egx-snowflake"}
UP, DOWN = "#26a69a", "#ef5350"


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
