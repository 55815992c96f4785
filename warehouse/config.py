"""Settings of the SQLMesh project: one set of models, two gateways.

A Python file, because every path is taken from where this file lies: `sqlmesh -p warehouse plan` and `cd warehouse &&
sqlmesh plan` see the same archive and the same tables. Choices come from the environment, secrets from nowhere else.

| variable | default | what |
|---|---|---|
| EGX_WAREHOUSE_ARCHIVE | data/archive | the bars' archive: a folder or s3://bucket/prefix (read through boto3: AWS_*) |
| EGX_WAREHOUSE | data/warehouse | folder of the DuckDB file, SQLMesh's state and the published Parquet files |
| EGX_START | 2020-01-01 | first delivery date that is loaded |
| EGX_CRON | * * * * * | when models may run, Africa/Cairo; "0 2 * * *" in production |
| EGX_INVESTING_DATES | MDY | order of day and month in files of investing.com: MDY or DMY |
| SNOWFLAKE_* | none | account, user, password or key or token, role, warehouse, database: the gateway `snowflake` |
| EGX_STATE_POSTGRES | none | postgresql://user:password@host:port/database: SQLMesh's state for the gateway `snowflake` |
"""

import atexit
import gc
import os
import warnings
from urllib.parse import unquote, urlsplit

import locations
import publishing
import vanished  # noqa: F401 - now, for macros: when they run, this folder is no longer on the path
from sqlmesh.core.config import (
    Config,
    DuckDBConnectionConfig,
    GatewayConfig,
    LinterConfig,
    ModelDefaultsConfig,
)
from sqlmesh.core.config.connection import ConnectionConfig, PostgresConnectionConfig
from sqlmesh.utils.errors import ConfigError

# SQLMesh's syntax trees are hundreds of thousands of objects that live long, and Python's collector goes over them again and
# again, at the end of the process too: by its defaults a quarter of a small run's time. For the processes that load this
# project, no other.
gc.set_threshold(1_000_000, 50, 1_000)
atexit.register(gc.freeze)
# pandas' notices about SQLMesh's own calls are no concern of who runs it.
warnings.filterwarnings("ignore", "(The argument 'infer_datetime_format'|errors='ignore') is deprecated")
warehouse = locations.warehouse()
if locations.archive().startswith("s3://"):
    import s3_copy  # noqa: F401 - as above
publishing.folder().mkdir(parents=True, exist_ok=True)


def duckdb_connection() -> ConnectionConfig:
    """The embedded engine."""
    return DuckDBConnectionConfig(
        # The catalog is spelled as Snowflake folds names. Under `database: egx_dw.duckdb` it would be `egx_dw`, SQLMesh
        # would look in `EGX_DW`, find no table there and make each incremental-by-key table anew on every run.
        catalogs={"EGX_DW": f"{warehouse}/egx_dw.duckdb"},
        # Otherwise reading tens of thousands of small files runs out of memory.
        connector_config={"preserve_insertion_order": False},
    )


def duckdb_state(name: str) -> ConnectionConfig:
    """SQLMesh's own tables, in a file of their own: a DuckDB file takes one process at a time."""
    return DuckDBConnectionConfig(database=f"{warehouse}/{name}.duckdb")


def snowflake_gateway() -> GatewayConfig:
    """Snowflake by SNOWFLAKE_*: a password, a key pair (SNOWFLAKE_PRIVATE_KEY_PATH) or OAuth (SNOWFLAKE_TOKEN)."""
    from sqlmesh.core.config.connection import SnowflakeConnectionConfig

    names = [
        "account",
        "user",
        "password",
        "role",
        "authenticator",
        "token",
        "private_key",
        "private_key_path",
        "private_key_passphrase",
        "host",
        "port",
    ]
    given = {name: value for name in names if (value := os.environ.get(f"SNOWFLAKE_{name.upper()}"))}
    if not {"password", "private_key", "private_key_path", "token", "authenticator"} & set(given):
        raise ConfigError("Snowflake: set SNOWFLAKE_PASSWORD, SNOWFLAKE_PRIVATE_KEY_PATH or SNOWFLAKE_TOKEN")
    if "token" in given:
        given.setdefault("authenticator", "oauth")
    connection = SnowflakeConnectionConfig(
        database=os.environ.get("SNOWFLAKE_DATABASE", "EGX_DW"),
        warehouse=os.environ.get("SNOWFLAKE_WAREHOUSE", "EGX_WH"),
        # SQLMesh may hang where several tasks share a state in DuckDB.
        concurrent_tasks=4 if os.environ.get("EGX_STATE_POSTGRES") else 1,
        **given,
    )
    return GatewayConfig(connection=connection, state_connection=snowflake_state())


def snowflake_state() -> ConnectionConfig:
    """Postgres in production. Never Snowflake: state is many small transactional writes."""
    if not (address := os.environ.get("EGX_STATE_POSTGRES")):
        return duckdb_state("state_snowflake")
    url = urlsplit(address)
    return PostgresConnectionConfig(
        host=url.hostname or "localhost",
        port=url.port or 5432,
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        database=url.path.lstrip("/"),
    )


gateways = {"duckdb": GatewayConfig(connection=duckdb_connection(), state_connection=duckdb_state("state"))}
# Only with an account: the gateway makes SQLMesh import Snowflake's connector, three seconds for DuckDB's runs too.
if os.environ.get("SNOWFLAKE_ACCOUNT"):
    gateways["snowflake"] = snowflake_gateway()

config = Config(
    project="egx",
    gateways=gateways,
    default_gateway="duckdb",
    model_defaults=ModelDefaultsConfig(
        dialect="snowflake",
        start=os.environ.get("EGX_START") or "2020-01-01",
        # `plan` and `run` load what was delivered up to the last tick of this cron, today's part included; the intervals
        # stay UTC days. Production sets "0 2 * * *": once a night, on the exchange's clock (docs/warehouse.md).
        cron=os.environ.get("EGX_CRON") or "* * * * *",
        cron_tz="Africa/Cairo",
        interval_unit="day",
        allow_partials=True,
    ),
    after_all=["@PUBLISH(gold)"],
    notification_targets=[publishing.Publication()],
    linter=LinterConfig(
        enabled=True,
        rules={
            "ambiguousorinvalidcolumn",
            "invalidselectstarexpansion",
            "noambiguousprojections",
            "nomissingaudits",
            "nojsonpath",
        },
    ),
    # Not in the project's folder, which may be read-only.
    cache_dir=f"{warehouse}/cache",
    disable_anonymized_analytics=True,
)
