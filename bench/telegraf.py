"""Telegraf, which a user would pick for Kafka -> InfluxDB: built by Go, with the plugins that this takes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.servers.build import cache_folder, locked

VERSION = "v1.37.2"
_TAGS = "custom,inputs.kafka_consumer,outputs.influxdb_v2,parsers.json_v2,serializers.influx"


def binary() -> Path:
    """Builds it once, in about half a minute; needs Go."""
    path = cache_folder() / f"telegraf-{VERSION}" / "telegraf"
    with locked(cache_folder() / f"telegraf-{VERSION}.lock"):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            module = ["go", "mod", "download", "-json", f"github.com/influxdata/telegraf@{VERSION}"]
            source = json.loads(subprocess.run(module, check=True, capture_output=True).stdout)["Dir"]
            unfinished = path.with_suffix(".tmp")
            build = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", f"-tags={_TAGS}", f"-o={unfinished}"]
            subprocess.run([*build, "./cmd/telegraf"], cwd=source, check=True, env={**os.environ, "GOFLAGS": ""})
            unfinished.rename(path)
    return path


def configuration(kafka: str, topic: str, group: str, url: str, token: str, org: str, bucket: str) -> str:
    """The same fields and three tags as the live leg writes, in the same batches, gzipped."""
    fields = "".join(
        f'[[inputs.kafka_consumer.json_v2.field]]\npath="{name}"\ntype="{kind}"\n'
        for name, kind in [
            *dict.fromkeys(("open", "high", "low", "close"), "float").items(),
            ("volume", "int"),
            ("is_final", "bool"),
        ]
    )
    tags = "".join(f'[[inputs.kafka_consumer.json_v2.tag]]\npath="{name}"\n' for name in ("symbol", "exchange", "interval"))
    return f"""
[agent]
interval = "1s"
flush_interval = "100ms"
metric_batch_size = 5000
metric_buffer_limit = 100000
omit_hostname = true
[[inputs.kafka_consumer]]
brokers = ["{kafka}"]
topics = ["{topic}"]
kafka_version = "2.8.0"
offset = "oldest"
consumer_group = "{group}"
max_undelivered_messages = 50000
data_format = "json_v2"
[[inputs.kafka_consumer.json_v2]]
measurement_name = "stock_price"
timestamp_path = "datetime"
timestamp_format = "2006-01-02T15:04:05Z"
{tags}{fields}
[[outputs.influxdb_v2]]
urls = ["{url}"]
token = "{token}"
organization = "{org}"
bucket = "{bucket}"
content_encoding = "gzip"
"""
