"""Hostile input reaches no key and no line, secrets reach no log, and certificates are checked."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from influxdb_client import InfluxDBClient

from connectors.errors import PermanentError
from connectors.influxdb import Server
from connectors.kafka import Record, Topic, Writer, ensure_topics, headers
from connectors.s3 import Bucket
from dataflows.bar import Bar, encode
from dataflows.dead_letters import read
from tests.servers.fixtures import InfluxdbServer, KafkaServer, S3Server
from tests.servers.legs import PROJECT, environment, run_to_the_end

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
GOOD = Bar("COMI", "EGX", "1 Minute", NOW - dt.timedelta(minutes=5), 1.0, 2.0, 0.5, 1.5, 7, NOW, "test", True)
EVIL = [
    "../../../etc/passwd", "/etc/passwd", "a/b", "..\\..", "COMI\0", "COMI,symbol=EVIL", "COMI close=1i\nm,x=y z=1", "COMI\n",
    "COMI ", "comi", "СОМI", "ＣＯＭＩ", "COMI\u202e", "", "A" * 21, "A" * 1_000_000, "%2e%2e%2f", "$(id)", "'; DROP TABLE x; --",
]  # fmt: skip


def evil_messages() -> list[bytes]:
    message = json.loads(encode(GOOD))
    return [json.dumps({**message, field: text}).encode() for text in EVIL for field in ("symbol", "exchange", "interval")]


def test_names_that_try_to_break_out_reach_neither_a_key_nor_a_line(
    kafka: KafkaServer, influxdb: InfluxdbServer, s3: S3Server, unique_name: str
) -> None:
    client = {"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 10_000_000}
    ensure_topics(
        client,
        [Topic(name, 1, 7, config={"max.message.bytes": "10485760"}) for name in (unique_name, f"{unique_name}.dead_letter")],
    )
    messages = evil_messages()
    Writer(client, unique_name, stop=threading.Event()).write(Record(b"k", value) for value in [*messages, encode(GOOD)])
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA__TOPIC": unique_name,
        "KAFKA__DEAD_LETTER_TOPIC": f"{unique_name}.dead_letter",
        "LIVE__GROUP": f"{unique_name}-live",
        "LIVE__STORE": "influxdb",
        "INFLUXDB__URL": influxdb.url,
        "INFLUXDB__ORG": influxdb.org,
        "INFLUXDB__TOKEN": influxdb.token,
        "INFLUXDB__BUCKET": unique_name,
        "ARCHIVE__GROUP": f"{unique_name}-archive",
        "ARCHIVE__URL": f"s3://{unique_name}/streaming/",
        "ARCHIVE__S3__ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_DEFAULT_REGION": s3.region,
    }

    run_to_the_end("live", settings, settings["LIVE__GROUP"], unique_name)
    run_to_the_end("archive", settings, settings["ARCHIVE__GROUP"], unique_name)

    keys = [item["Key"] for item in s3.client().list_objects_v2(Bucket=unique_name)["Contents"]]
    assert [bool(re.fullmatch(r"streaming/date=[\d-]{10}/symbol=COMI/\d{12}-0-\d{18}\.json", key)) for key in keys] == [True]
    assert s3.client().get_object(Bucket=unique_name, Key=keys[0])["Body"].read() == encode(GOOD) + b"\n"
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as influx:
        tables = influx.query_api().query(f'from(bucket: "{unique_name}") |> range(start: -1d)')
    series = {(r.get_measurement(), r["symbol"], r["exchange"], r["interval"]) for table in tables for r in table.records}
    assert series == {("stock_price", "COMI", "EGX", "1 Minute")}
    for leg in ("live", "archive"):
        letters = [m.value() for m in read(client, f"{unique_name}.dead_letter") if headers(m)["leg"] == leg]
        assert letters == messages


SECRETS = {
    "KAFKA__USERNAME": "user",
    "KAFKA__PASSWORD": "secret-of-kafka",
    "KAFKA__CLIENT": json.dumps({"ssl.key.password": "secret-of-the-key", "sasl.mechanism": "PLAIN"}),
    "INFLUXDB__TOKEN": "secret-of-influxdb",
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret-of-aws",
}


@pytest.mark.parametrize("module", ["dataflows.settings", "bytewax.run dataflows.live", "bytewax.run dataflows.archive"])
def test_secrets_reach_no_output(module: str) -> None:
    settings = {**SECRETS, "KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "LIVE__STORE": "influxdb", "ARCHIVE__URL": "s3://b/p/"}
    client = {**json.loads(SECRETS["KAFKA__CLIENT"]), "security.protocol": "SASL_PLAINTEXT", "debug": "all"}
    done = subprocess.run(
        [sys.executable, "-m", *module.split()],
        cwd=PROJECT,
        env=environment(**{**settings, "KAFKA__CLIENT": json.dumps(client)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout + done.stderr != ""
    assert "secret-of" not in done.stdout + done.stderr


def test_a_secret_of_the_wrong_kind_is_not_repeated_in_the_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dataflows.settings"],
        cwd=PROJECT,
        env=environment(INFLUXDB__TOKEN='{"secret-of": "influxdb"}', KAFKA__PASSWORD='["secret-of-kafka"]'),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "secret-of" not in done.stdout + done.stderr


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[str]:
    """An HTTPS server whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_certificates_that_nobody_vouches_for_are_refused(untrusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermanentError, match=r"influxdb\.ca_file"):
        Server(untrusted, "egx", "bucket", "token").retention_seconds()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    with pytest.raises(PermanentError, match="AWS_CA_BUNDLE"):
        Bucket("bucket", endpoint_url=untrusted, region="us-east-1")
