"""What the gateways become: Snowflake's three ways to sign in, the state's place, and an archive on S3."""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from archives import daily, deliver
from conftest import PROJECT, Warehouse
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.deploy import compose
from tests.deploy.test_compose import AWS
from tests.servers.fixtures import S3Server

SHOW = """
import json, sys
sys.path.insert(0, "warehouse")
from config import config
gateway = config.gateways["snowflake"]
given = {name: getattr(gateway.connection, name) for name in gateway.connection._connection_kwargs_keys}
given = {name: value.hex() if isinstance(value, bytes) else value for name, value in given.items()}
cron = config.model_defaults.cron
print(json.dumps({"connection": given, "state": gateway.state_connection.dict(), "cron": cron}, default=str))
"""


def loaded(tmp_path: Path, **variables: str) -> dict[str, dict[str, object]]:
    """The gateway `snowflake` as a new process makes it from these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNOWFLAKE_", "EGX_"))}
    environment = {
        **kept,
        "EGX_WAREHOUSE": str(tmp_path),
        "SNOWFLAKE_ACCOUNT": "org-acc",
        "SNOWFLAKE_USER": "SQLMESH",
        **variables,
    }
    ran = subprocess.run([sys.executable, "-c", SHOW], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    if ran.returncode:
        raise LookupError(ran.stderr)
    return json.loads(ran.stdout)


def test_a_password_signs_in_and_the_names_have_defaults(tmp_path: Path) -> None:
    connection = loaded(tmp_path, SNOWFLAKE_PASSWORD="not-a-secret", SNOWFLAKE_ROLE="EGX_TRANSFORMER")["connection"]
    assert [connection[name] for name in ("account", "user", "password", "role", "database", "warehouse")] == [
        "org-acc", "SQLMESH", "not-a-secret", "EGX_TRANSFORMER", "EGX_DW", "EGX_WH"]  # fmt: skip


def sealed_key(file: Path) -> str:
    """Writes a private key that "open sesame" opens, and gives what is in it."""
    key = rsa.generate_private_key(65537, 2048)
    sealed = serialization.BestAvailableEncryption(b"open sesame")
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain).hex()


def test_a_key_pair_signs_in_with_the_key_that_its_passphrase_opens(tmp_path: Path) -> None:
    """As compose's profile aws gives it to the warehouse, with everything else that the profile may set."""
    file = tmp_path / "key.p8"
    inside = sealed_key(file)
    variables = {
        **AWS,
        "SNOWFLAKE_PASSWORD": "",
        "SNOWFLAKE_PRIVATE_KEY_PATH": str(file),
        "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "open sesame",
        "SNOWFLAKE_ROLE": "EGX_TRANSFORMER",
        "SNOWFLAKE_WAREHOUSE": "OURS",
        "SNOWFLAKE_DATABASE": "EGX_TEST",
        "EGX_STATE_POSTGRES": "postgresql://sqlmesh:given@state.example/sqlmesh",
        "EGX_CRON": "0 2 * * *",
    }
    project = compose.load(variables)
    service = project["services"]["warehouse"]
    given = compose.environment(service, variables)
    assert given["WAREHOUSE_GATEWAY"] == "snowflake"
    assert given["SNOWFLAKE_PRIVATE_KEY_PATH"] == "/run/secrets/snowflake_key"
    assert service["secrets"] == ["snowflake_key"]
    assert project["secrets"]["snowflake_key"]["file"] == str(file)
    native = {"SNOWFLAKE_PRIVATE_KEY_PATH": str(file), "EGX_WAREHOUSE": str(tmp_path)}
    found = loaded(tmp_path, **{**given, **native})
    connection = found["connection"]
    assert (connection["private_key"], connection["password"]) == (inside, None)
    assert [connection[name] for name in ("role", "warehouse", "database")] == ["EGX_TRANSFORMER", "OURS", "EGX_TEST"]
    assert (found["state"]["type"], found["state"]["host"]) == ("postgres", "state.example")
    assert found["cron"] == "0 2 * * *"
    units = (PROJECT / "deploy" / "systemd" / "egx.env").read_text()
    assert {name for name in variables if name.startswith("SNOWFLAKE_") and not name.endswith(("PHRASE", "BASE"))} <= set(
        re.findall(r"\w+", units)
    )
    assert {"WAREHOUSE_GATEWAY", "EGX_STATE_POSTGRES", "EGX_CRON"} <= set(re.findall(r"\w+", units))


def test_without_a_way_to_sign_in_it_is_said_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="set SNOWFLAKE_PASSWORD, SNOWFLAKE_PRIVATE_KEY_PATH or SNOWFLAKE_TOKEN"):
        loaded(tmp_path)


def test_a_token_signs_in_by_oauth(tmp_path: Path) -> None:
    variables = {**AWS, "SNOWFLAKE_PASSWORD": "", "SNOWFLAKE_TOKEN": "a-token"}
    given = compose.environment(compose.load(variables)["services"]["warehouse"], variables)
    connection = loaded(tmp_path, **{**given, "EGX_WAREHOUSE": str(tmp_path)})["connection"]
    assert (connection["authenticator"], connection["token"]) == ("oauth", "a-token")


def test_the_state_is_in_postgres_never_in_snowflake(tmp_path: Path) -> None:
    address = "postgresql://sql%40mesh:p%2Fw@state.example:6432/sqlmesh"
    state = loaded(tmp_path, SNOWFLAKE_PASSWORD="x", EGX_STATE_POSTGRES=address)["state"]
    assert [state[name] for name in ("type", "host", "port", "user", "password", "database")] == [
        "postgres", "state.example", 6432, "sql@mesh", "p/w", "sqlmesh"]  # fmt: skip
    assert loaded(tmp_path, SNOWFLAKE_PASSWORD="x")["state"]["type"] == "duckdb"


@pytest.mark.servers
def test_an_archive_on_s3_gives_the_rows_of_the_same_folder(
    make_warehouse, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines, files of history, and an object that came late."""
    from warehouse.run import late_dates, lost

    local: Warehouse = make_warehouse("local")
    day = dt.date(2026, 9, 6)
    deliver(local.archive, [daily("COMI", day, 80), daily("ETEL", day, 40), "{broken"], date=str(day))
    (local.archive / "batch").mkdir()
    (local.archive / "batch" / "ABUK.csv").write_text(
        "Date,Open,High,Low,Close,Adj Close,Volume\n2026-09-06,50,51,49,50.5,50.5,1000\n"
    )
    local.plan()
    expected = local.table("bronze.stock_prices_raw"), local.table("gold.fct_stock_daily_prices", but=["ingested_at"])
    assert lost(local.context, day, 3) is None
    (local.archive / "streaming").rename(local.archive / "elsewhere")
    assert f"The archive {local.archive} has no streaming/date=... folder" in (lost(local.context, day, 3) or "")
    (local.archive / "elsewhere").rename(local.archive / "streaming")
    local.close()

    for name, value in {"AWS_ENDPOINT_URL_S3": s3.endpoint, "AWS_ACCESS_KEY_ID": s3.access_key,
                        "AWS_SECRET_ACCESS_KEY": s3.secret_key, "AWS_DEFAULT_REGION": s3.region}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client, bucket = s3.client(), f"warehouse-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    for path in local.archive.rglob("*.*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"egx/{path.relative_to(local.archive)}")
    remote = Warehouse(f"s3://{bucket}/egx", local.folder.parent / "remote").open()
    try:
        remote.plan()
        assert (
            remote.table("bronze.stock_prices_raw"),
            remote.table("gold.fct_stock_daily_prices", but=["ingested_at"]),
        ) == expected
        assert late_dates(remote.context, day, 3) == []
        late = deliver(local.archive, [daily("SWDY", day, 60)], 900)[0]
        client.upload_file(str(late), bucket, f"egx/{late.relative_to(local.archive)}")
        assert late_dates(remote.context, day, 3) == [day]
        assert lost(remote.context, day, 3) is None
        monkeypatch.setenv("EGX_WAREHOUSE_ARCHIVE", f"s3://{bucket}/mistyped")
        assert "mistyped has no streaming/date=... folder, and bronze has" in (lost(remote.context, day, 3) or "")
    finally:
        remote.close()


def test_an_archive_on_s3_that_does_not_answer_stops_the_run_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sqlmesh.utils.errors import SQLMeshError

    from warehouse.history import changed_files

    monkeypatch.syspath_prepend(str(PROJECT / "warehouse"))
    import s3_copy

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SQLMeshError, match=r"The archive s3://nowhere/egx cannot be listed: .*check EGX_WAREHOUSE_ARCHIVE"):
        s3_copy.delivered("s3://nowhere/egx", dt.date(2026, 9, 6), dt.date(2026, 9, 6))
    with pytest.raises(SQLMeshError, match=r"The archive s3://nowhere/egx cannot be read: .*check EGX_WAREHOUSE_ARCHIVE"):
        changed_files("s3://nowhere/egx", "MDY", {})
