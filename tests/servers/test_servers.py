"""The servers answer their real clients, come back from a crash with their data, and end when told to."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from tests.servers.fixtures import InfluxdbServer, KafkaServer, S3Server
from tests.servers.influxdb import Influxdb
from tests.servers.kafka import Kafka
from tests.servers.process import Server, wait_until
from tests.servers.s3 import S3
from tests.servers.toxiproxy import Toxiproxy, ToxiproxyClient


def _make_topic(client: dict[str, str], name: str) -> None:
    admin = AdminClient({**client})  # kept: a client that is collected abandons its requests
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)


def _produce(client: dict[str, str], topic: str, *values: bytes) -> None:
    failed: list[KafkaError] = []
    producer = Producer({**client, "acks": "all"})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(60) == 0
    assert failed == []


def _consume(client: dict[str, str], topic: str, count: int) -> list[bytes]:
    consumer = Consumer({**client, "group.id": topic})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages = consumer.consume(count, timeout=30)
        assert [message.error() for message in messages] == [None] * count
        return [value for message in messages if (value := message.value()) is not None]
    finally:
        consumer.close()


def _is_refused(client: dict[str, str], code: int) -> bool:
    """Waits until a client with these settings meets an error of this code (a busy machine may add others before it)."""
    errors: list[int] = []
    properties: dict[str, Any] = {**client, "error_cb": lambda error: errors.append(error.code())}
    admin = AdminClient(properties)
    wait_until(lambda: admin.poll(0.1) >= 0 and code in errors, 30, lambda: f"the client met {errors}, not {code}")
    return True


def _write_points(server: InfluxdbServer, bucket: str, *lines: str) -> None:
    with InfluxDBClient(server.url, server.token, org=server.org) as client:
        if client.buckets_api().find_bucket_by_name(bucket) is None:
            client.buckets_api().create_bucket(bucket_name=bucket)
        client.write_api(SYNCHRONOUS).write(bucket, record=list(lines), write_precision="s")


def _closes(server: InfluxdbServer, bucket: str) -> list[float]:
    with InfluxDBClient(server.url, server.token, org=server.org) as client:
        query = f'from(bucket: "{bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "close")'
        return [record.get_value() for table in client.query_api().query(query) for record in table.records]


def _server(influxdb: Influxdb) -> InfluxdbServer:
    return InfluxdbServer(influxdb.url, influxdb.secrets["token"], influxdb.org)


def _account(s3: S3) -> S3Server:
    return S3Server(s3.url, s3.secrets["access_key"], s3.secrets["secret_key"], s3.region)


def _ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_kafka_answers_its_client(kafka: KafkaServer, unique_name: str) -> None:
    client = {"bootstrap.servers": kafka.bootstrap}
    _make_topic(client, unique_name)
    _produce(client, unique_name, b"a", b"b")
    assert _consume(client, unique_name, 2) == [b"a", b"b"]


def test_kafka_makes_no_topic_by_itself(kafka: KafkaServer, unique_name: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "topic.metadata.propagation.max.ms": 1_000})
    errors: list[KafkaError | None] = []
    producer.produce(unique_name, b"a", on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    assert [error.code() for error in errors if error] == [KafkaError.UNKNOWN_TOPIC_OR_PART]


def test_influxdb_answers_its_client(influxdb: InfluxdbServer, unique_name: str) -> None:
    _write_points(influxdb, unique_name, "stock_price,symbol=COMI close=83.9 1764000000")
    assert _closes(influxdb, unique_name) == [83.9]


def test_influxdb_refuses_another_token(influxdb: InfluxdbServer) -> None:
    with (
        InfluxDBClient(influxdb.url, "another token", org=influxdb.org) as client,
        pytest.raises(ApiException, match="401"),
    ):
        client.buckets_api().find_buckets()


def test_s3_answers_its_client(s3: S3Server, unique_name: str) -> None:
    client = s3.client()
    client.create_bucket(Bucket=unique_name)
    client.put_object(Bucket=unique_name, Key="date=2025-12-07/a.json", Body=b"{}\n")
    listed = client.list_objects_v2(Bucket=unique_name, Prefix="date=2025-12-07/")
    assert [item["Key"] for item in listed["Contents"]] == ["date=2025-12-07/a.json"]
    assert client.get_object(Bucket=unique_name, Key="date=2025-12-07/a.json")["Body"].read() == b"{}\n"


def test_s3_refuses_another_secret(s3: S3Server) -> None:
    stranger = S3Server(s3.endpoint, s3.access_key, "another secret", s3.region).client()
    with pytest.raises(ClientError) as refused:
        stranger.list_buckets()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.servers("s3")
def test_an_s3_account_without_rights_may_neither_write_nor_make_a_bucket(tmp_path: Path) -> None:
    with S3(tmp_path / "s3") as s3:
        _account(s3).client().create_bucket(Bucket="bars")
        stranger = S3Server(s3.url, *s3.add_account(), s3.region).client()
        with pytest.raises(ClientError, match="AccessDenied"):
            stranger.put_object(Bucket="bars", Key="a", Body=b"a")
        with pytest.raises(ClientError, match="AccessDenied"):
            stranger.create_bucket(Bucket="another")


@pytest.mark.servers("kafka")
def test_kafka_takes_clients_by_tls_and_sasl_and_no_others(tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka", sasl_tls=True) as kafka:
        client = kafka.secure_client()
        _make_topic(client, "bars")
        _produce(client, "bars", b"a")
        assert _consume(client, "bars", 1) == [b"a"]
        assert _is_refused({**client, "sasl.password": "another"}, KafkaError._AUTHENTICATION)
        # The authorities of the system do not vouch for the broker's certificate.
        assert _is_refused({**client, "ssl.ca.location": "probe"}, KafkaError._SSL)
        assert stat.S_IMODE((kafka.folder / "broker.pem").stat().st_mode) == 0o600
        assert stat.S_IMODE((kafka.folder / "server.properties").stat().st_mode) == 0o600


@pytest.mark.servers("kafka")
def test_kafka_is_reached_through_a_proxy_only_while_that_lets_it(
    toxiproxy: ToxiproxyClient, unique_name: str, tmp_path: Path
) -> None:
    with (
        Kafka(tmp_path / "kafka", proxied=True) as kafka,
        toxiproxy.create(unique_name, kafka.proxied_address, kafka.proxy_address) as proxy,
    ):
        client = {"bootstrap.servers": kafka.proxy_address}
        _make_topic(client, "bars")
        _produce(client, "bars", b"before")
        proxy.disable()
        producer = Producer({**client, "acks": "all"})
        failed: list[KafkaError | None] = []
        producer.produce("bars", b"during", on_delivery=lambda error, _: failed.append(error))
        assert producer.flush(2) == 1  # neither delivered nor given up
        proxy.heal()
        assert producer.flush(30) == 0
        assert failed == [None]
        assert _consume(client, "bars", 2) == [b"before", b"during"]


@pytest.mark.servers("kafka")
def test_kafka_survives_a_crash_with_its_data(tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka") as kafka:
        client = {"bootstrap.servers": kafka.address}
        _make_topic(client, "bars")
        _produce(client, "bars", b"before")
        kafka.kill()
        kafka.restart_on_same_port()
        _produce(client, "bars", b"after")
        assert _consume(client, "bars", 2) == [b"before", b"after"]


@pytest.mark.servers("influxdb")
def test_influxdb_survives_a_crash_with_its_data(tmp_path: Path) -> None:
    with Influxdb(tmp_path / "influxdb") as influxdb:
        _write_points(_server(influxdb), "bars", "stock_price close=1.5 1764000000")
        influxdb.kill()
        influxdb.restart_on_same_port()
        _write_points(_server(influxdb), "bars", "stock_price close=2.5 1764000060")
        assert _closes(_server(influxdb), "bars") == [1.5, 2.5]


@pytest.mark.servers("s3")
def test_s3_survives_a_crash_with_its_data(tmp_path: Path) -> None:
    with S3(tmp_path / "s3") as s3:
        client = _account(s3).client()
        client.create_bucket(Bucket="bars")
        client.put_object(Bucket="bars", Key="a", Body=b"a")
        etag = client.head_object(Bucket="bars", Key="a")["ETag"]
        s3.kill()
        s3.restart_on_same_port()
        assert client.get_object(Bucket="bars", Key="a")["Body"].read() == b"a"
        assert client.head_object(Bucket="bars", Key="a")["ETag"] == etag


@pytest.mark.servers("kafka", "influxdb", "s3", "toxiproxy")
@pytest.mark.parametrize("kind", [Kafka, Influxdb, S3, Toxiproxy])
def test_a_stopped_server_leaves_no_process_and_no_open_port(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "server") as server:
        process = server.process
        assert process is not None
        family = [process, *process.children(recursive=True)]
    assert [one.pid for one in family if not _ended(one.pid)] == []
    assert server.process is None


@pytest.mark.servers("influxdb", "s3")
@pytest.mark.parametrize("kind", [Influxdb, S3])
def test_credentials_differ_from_server_to_server_and_are_in_no_open_file(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "one") as one, kind(tmp_path / "two") as two:
        assert set(one.secrets.values()).isdisjoint(two.secrets.values())
        assert all(len(secret) >= 32 for secret in one.secrets.values())
        process = one.process
        assert process is not None
        assert [secret for secret in one.secrets.values() if secret in " ".join(process.cmdline())] == []
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
