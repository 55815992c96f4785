from __future__ import annotations

import datetime as dt
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec.structs import replace

from dataflows.settings import ROOT, Settings, SettingsError, Source, load, masked

SHIPPED = ROOT / "config.yaml"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Without what is set for the project."""
    for name in list(os.environ):
        if name.startswith("EGX_"):
            monkeypatch.delenv(name)
    load.cache_clear()
    yield monkeypatch
    load.cache_clear()


Read = Callable[[str | bytes], Settings]


@pytest.fixture
def read(tmp_path: Path, environment: pytest.MonkeyPatch) -> Read:
    """Loads the settings of a file with the text."""

    def read(text: str | bytes) -> Settings:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        environment.setenv("EGX_CONFIG", str(path))
        load.cache_clear()
        return load()

    return read


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


SECRETS = {"kafka.password", "influxdb.token", "source.egxpy.password"}


def test_the_shipped_file_has_every_setting_and_gives_each_its_default(read: Read) -> None:
    defaults = dict(leaves(yaml.safe_load(msgspec.yaml.encode(masked(read(""))))))
    shipped = dict(leaves(yaml.safe_load(SHIPPED.read_text())))
    assert shipped == {key: value for key, value in defaults.items() if key not in SECRETS}
    assert read(SHIPPED.read_text()) == read("")


def test_the_shipped_file_says_what_each_setting_is_and_its_default() -> None:
    sections: list[tuple[int, str]] = []
    values = dict(leaves(yaml.safe_load(SHIPPED.read_text())))
    seen = set()
    for line in SHIPPED.read_text().splitlines():
        found = re.fullmatch(r"( *)([a-z_0-9]+):(?: +([^#]*?))?(?: +# (.+))?", line)
        if not found:
            assert not line.strip() or line.startswith("#"), line
            continue
        indent, key, value, comment = len(found[1]), found[2], found[3], found[4]
        sections = [section for section in sections if section[0] < indent]
        path = ".".join([name for _, name in sections] + [key])
        if path not in values:
            sections.append((indent, key))
            continue
        seen.add(path)
        if path == "source.symbols":  # the list says it all
            continue
        assert comment, f"{path} is not explained"
        if value and value != "{}":
            assert f"Default: {value}" in comment, f"{path} does not name its default"
        if key.endswith(("_days", "_seconds")):
            assert "days" in comment or "seconds" in comment, f"{path} names no unit"
    assert seen == set(values)


def test_the_environment_goes_before_the_file(read: Read, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EGX_SOURCE__KIND", "replay")
    environment.setenv("EGX_SOURCE__SYMBOLS", '["COMI", "ETEL"]')
    environment.setenv("EGX_ARCHIVE__S3__REGION", "eu-central-1")
    environment.setenv("EGX_RETRY_SECONDS", "5")
    settings = read("source: {kind: simulated, exchange: XX}\nretry_seconds: 7\n")
    assert (settings.source.kind, settings.source.exchange) == ("replay", "XX")
    assert settings.source.symbols == ("COMI", "ETEL")
    assert settings.archive.s3.region == "eu-central-1"
    assert settings.retry_seconds == 5


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("metrics.influxdb", "true", True),
        ("metrics.influxdb", "True", True),
        ("metrics.influxdb", "1", True),
        ("source.follow", "false", False),
        ("source.follow", "0", False),
        ("metrics.port", "9400", 9400),
        ("kafka.replication_factor", "-1", -1),
        ("source.simulated.speed", "1e3", 1000.0),
        ("source.poll_seconds", "0.5", 0.5),
        ("source.simulated.date", "2025-12-07", dt.date(2025, 12, 7)),
        ("source.replay.path", "bars", Path("bars")),
        ("kafka.username", "123", "123"),
        ("kafka.username", "null", "null"),
    ],
)
def test_text_of_the_environment_becomes_what_the_setting_is(
    read: Read, environment: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    environment.setenv(f"EGX_{name.replace('.', '__').upper()}", text)
    found = operator.attrgetter(name)(read(""))
    assert (type(found), found) == (type(value), value)


def test_names_in_the_environment_may_be_in_small_letters(read: Read, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("egx_source__simulated__Seed", "7")
    assert read("").source.simulated.seed == 7


def test_a_section_may_be_given_as_json_and_its_own_settings_go_before_it(read: Read, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EGX_SOURCE", '{"kind": "replay", "bars": 7, "replay": {"speed": 2}}')
    environment.setenv("EGX_SOURCE__BARS", "8")
    environment.setenv("EGX_KAFKA__CLIENT", '{"b": 2}')
    settings = read("source: {bars: 9, exchange: XX}\nkafka: {client: {a: 1, b: 1}}")
    assert (settings.source.kind, settings.source.bars, settings.source.exchange) == ("replay", 8, "XX")
    assert settings.source.replay.speed == 2
    assert settings.kafka.client == {"a": 1, "b": 2}


def test_empty_means_the_default_in_file_and_environment(read: Read, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EGX_KAFKA__TOPIC", "")
    assert read("kafka:\n  topic:\nsource:\n") == read("")


def test_paths_start_at_the_files_folder(read: Read, tmp_path: Path) -> None:
    settings = read("")
    assert settings.path(settings.live.sqlite) == tmp_path / "data/live.sqlite"
    assert settings.path("/elsewhere/x") == Path("/elsewhere/x")
    assert settings.path("~/x") == Path.home() / "x"


def test_the_file_of_the_working_folder_goes_before_the_projects(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.chdir(tmp_path)
    assert load().file == SHIPPED
    (tmp_path / "config.yaml").write_text("retry_seconds: 9")
    load.cache_clear()
    assert (load().file, load().retry_seconds) == (tmp_path / "config.yaml", 9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: {knd: replay}", ["unknown setting source.knd", "source has kind, exchange, symbols"]),
        ("sorce: {}", ["unknown setting sorce", "there are source, kafka"]),
        ("archive: {s3: {regoin: x}}", ["unknown setting archive.s3.regoin", "archive.s3 has endpoint_url, region"]),
        ("source: {kind: bloomberg}", ["source.kind", "'bloomberg'", "'simulated'", "'replay'"]),
        ("source: {symbols: []}", ["source.symbols"]),
        ("source: {symbols: [comi]}", ["source.symbols.0", "'comi'", "capital letters"]),
        ("source: {exchange: 'E/X'}", ["source.exchange", "'E/X'"]),
        ("source: {interval: Hourly}", ["source.interval", "'Hourly'", "'1 Minute'"]),
        ("source: {simulated: {speed: -1}}", ["source.simulated.speed", "-1"]),
        ("source: {simulated: {speed: .inf}}", ["source.simulated.speed", "<= 1000000"]),
        ("source: {simulated: {date: 2025-13-01}}", ["is not YAML", "month must be in 1..12"]),
        ("source: {simulated: {date: today}}", ["source.simulated.date", "'today'"]),
        ("archive: {url: gs://bucket/x}", ["archive.url", "'gs://bucket/x'", "s3://bucket/prefix/"]),
        ("archive: {url: s3://}", ["archive.url", "s3://bucket/prefix/"]),
        ("archive: {url: s3:/bucket/x}", ["archive.url", "'s3:/bucket/x'", "s3://bucket/prefix/"]),
        ("archive: {s3: {endpoint_url: '127.0.0.1:9000'}}", ["archive.s3.endpoint_url", "http://"]),
        ("influxdb: {url: 'ftp://x'}", ["influxdb.url", "http://"]),
        ("influxdb: {retain_days: 0}", ["influxdb.retain_days", "must be a number > 0"]),
        ("kafka: {partitions: many}", ["kafka.partitions", "'many'", "integer"]),
        ("live: {store: postgres}", ["live.store", "'postgres'", "'sqlite' or 'influxdb'"]),
        ("kafka: {password: hunter2}", ["kafka.password is a secret", "EGX_KAFKA__PASSWORD"]),
        ("influxdb: {token: hunter2}", ["influxdb.token is a secret", "EGX_INFLUXDB__TOKEN"]),
        ("kafka: {client: {sasl.password: hunter2}}", ["kafka.client.sasl.password is a secret", "EGX_KAFKA__PASSWORD"]),
        ("kafka: {client: {ssl.key.pem: hunter2}}", ["kafka.client.ssl.key.pem is a secret", "EGX_KAFKA__CLIENT"]),
        ("source: [", ["is not YAML"]),
        ("a: b: c", ["is not YAML", "line 1"]),
        ("\t- x", ["is not YAML"]),
        (b"source: {exchange: \xff}", ["is not YAML"]),
        ("just words", ["must hold sections"]),
        ("[source]", ["must hold sections"]),
        ("5", ["must hold sections"]),
        ("source: replay", ["setting source"]),
        ("1: 2", ["must hold sections"]),
        ("influxdb: {url: 'http://me:hunter2@x'}", ["influxdb.url", "without user and password"]),
        ("source: {egxpy: {sign_in_url: 'https://me:hunter2@x'}}", ["sign_in_url", "without user and password"]),
        ("source: {egxpy: {data_url: 'wss://me:hunter2@x'}}", ["data_url", "without user and password"]),
        ("influxdb: hunter2", ["setting influxdb", "names with values"]),
        ("kafka: {client: [hunter2]}", ["setting kafka.client", "names with values"]),
        ("logs: 5", ["setting logs: 5", "'text' or 'json'"]),
        ("live: {sqlite: 5}", ["live.sqlite", "5", "text"]),
        ("kafka: {partitions: true}", ["kafka.partitions", "True", "integer"]),
        ("metrics: {influxdb: maybe}", ["metrics.influxdb", "'maybe'", "true or false"]),
        ("metrics: {port: 70000}", ["metrics.port", "70000", "<= 65535"]),
        ("source: {egxpy: {delay_minutes: .nan}}", ["delay_minutes", "nan"]),
    ],
)
def test_what_is_wrong_in_the_file_is_said_in_one_line_without_its_secrets(
    read: Read, text: str | bytes, says: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    message = str(caught.value)
    assert [part for part in says if part not in message] == [], message
    assert "\n" not in message
    assert "hunter2" not in message


def test_every_mistake_is_said_at_once(read: Read, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EGX_KAFKA__READERS", "0")
    environment.setenv("EGX_SOURCE__EGXPY__DEADLINE_SECONDS", "1")
    with pytest.raises(SettingsError) as caught:
        read("source: {kind: x, knd: y}\nkafka: {partitions: many, retain_days: 0}\nlogs: z\nspeed: 1")
    assert re.findall(r"setting ([a-z_.]+)", str(caught.value)) == [
        "source.kind",
        "source.knd",
        "source.egxpy",
        "kafka.partitions",
        "kafka.retain_days",
        "kafka.readers",
        "logs",
        "speed",
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8086", "https://x", "HTTPS://x.org/path/a@b?c", "http://[::1]:8086/"])
def test_an_address_of_the_web_is_taken_as_it_is(read: Read, url: str) -> None:
    assert read(f"influxdb: {{url: '{url}'}}").influxdb.url == url


@pytest.mark.parametrize("url", ["", "http://", "http://:80", "http:///x", "http://x:port", "http://[::1", "127.0.0.1:80"])
def test_what_is_no_address_of_the_web_is_refused(read: Read, url: str) -> None:
    with pytest.raises(SettingsError, match=r"influxdb\.url: must be an http:// or https:// address"):
        read(f"influxdb: {{url: '{url}'}}")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("EGX_SOURCE__KNID", "replay", ["unknown setting source.knid", "source has kind"]),
        ("EGX_SORCE__KIND", "replay", ["EGX_SORCE__KIND is no setting", "did you mean EGX_SOURCE__KIND?"]),
        ("EGX_SOURCE_KIND", "replay", ["EGX_SOURCE_KIND is no setting", "did you mean EGX_SOURCE__KIND?"]),
        ("EGX_X", "1", ["EGX_X is no setting", "sections: source, kafka"]),
        ("EGX_SOURCE__SYMBOLS", "COMI,ETEL", ["JSON", '["COMI"]']),
        ("EGX_SOURCE__SYMBOLS", '["comi"]', ["source.symbols.0"]),
        ("EGX_KAFKA__CLIENT", "sasl.password=hunter2", ["EGX_KAFKA__CLIENT must be JSON"]),
        ("EGX_KAFKA__CLIENT", "hunter2 \udcff", ["EGX_KAFKA__CLIENT must be JSON"]),
        ("EGX_KAFKA", '"hunter2"', ["setting kafka"]),
        ("EGX_SOURCE__KIND__X", "y", ["source.kind"]),
        ("EGX_RETRY_SECONDS", "soon", ["retry_seconds", "'soon'"]),
        ("EGX_CONFIG", "/nowhere/config.yaml", ["there is no file /nowhere/config.yaml", "EGX_CONFIG"]),
        ("EGX_CONFIG", "/", ["there is no file /"]),
    ],
)
def test_what_is_wrong_in_the_environment_is_said(
    environment: pytest.MonkeyPatch, name: str, value: str, says: list[str]
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    message = str(caught.value)
    assert [part for part in says if part not in message] == [], message
    assert "\n" not in message
    assert "hunter2" not in message


OF_THE_WAREHOUSE = re.findall(r"^\| (EGX_\w+) \|", (ROOT / "warehouse" / "config.py").read_text(), re.MULTILINE)


def test_the_warehouse_s_own_variables_are_among_those() -> None:
    assert {"EGX_CRON", "EGX_INVESTING_DATES", "EGX_STATE_POSTGRES"} <= set(OF_THE_WAREHOUSE)


@pytest.mark.parametrize(
    "name", ["EGX_DATA_DIR", "EGX_TEST_KAFKA", "EGX_TEST_INFLUXDB_URL", "EGX_HYPOTHESIS_PROFILE", *OF_THE_WAREHOUSE]
)
def test_what_is_read_elsewhere_is_let_be(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(name, "x")
    assert load().source.kind == "simulated"


def test_secrets_come_from_the_environment_and_are_masked(read: Read, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EGX_KAFKA__PASSWORD", "hunter2")
    environment.setenv("EGX_INFLUXDB__TOKEN", "hunter2")
    environment.setenv("EGX_KAFKA__CLIENT", '{"sasl.oauthbearer.client.secret": "hunter2", "ssl.key.pem": "hunter2", "a": "b"}')
    settings = read("")
    assert settings.kafka.password
    assert settings.kafka.password.get_secret_value() == "hunter2"
    assert "hunter2" not in str(masked(settings)) + repr(settings.kafka.password)
    assert masked(settings)["kafka"]["client"]["a"] == "b"


def printed(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("EGX_")}
    return subprocess.run(
        [sys.executable, "-m", "dataflows.settings"],
        cwd=ROOT,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_settings_in_effect_are_printed_as_a_file_that_gives_them(tmp_path: Path, read: Read) -> None:
    done = printed(tmp_path, EGX_SOURCE__KIND="replay", EGX_INFLUXDB__TOKEN="hunter2", EGX_KAFKA__PASSWORD="hunter2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# {SHIPPED}\n")
    assert "hunter2" not in done.stdout
    assert "**********" in done.stdout
    settings = read("\n".join(line for line in done.stdout.splitlines() if "****" not in line))
    assert settings.source.kind == "replay"
    assert replace(settings, source=Source()) == read("")


def test_a_leg_starts_without_what_takes_as_long_to_import_as_all_the_rest() -> None:
    code = (
        "import sys, bytewax.run, dataflows.main; from dataflows.settings import load; load();"
        "print({'pydantic', 'boto3', 'botocore'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_printing_wrong_settings_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    done = printed(tmp_path, EGX_SOURCE__KIND="none")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"egx: setting source\.kind: 'none': .*\n", done.stderr)
