"""Asking a running InfluxDB."""

from __future__ import annotations

from typing import Any

from influxdb_client import InfluxDBClient

from tests.servers.fixtures import InfluxdbServer


def rows(server: InfluxdbServer, query: str) -> list[dict[str, Any]]:
    """The rows of a Flux query, all its tables together."""
    with InfluxDBClient(server.url, server.token, org=server.org) as client:
        return [record.values for table in client.query_api().query(query) for record in table.records]
