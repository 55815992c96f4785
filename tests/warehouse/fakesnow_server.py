"""Test stand-in for Snowflake: fakesnow's server behind TLS, with the few gaps SQLMesh meets filled.

Run in fakesnow's own virtual environment (fakesnow_venv.sh): python fakesnow_server.py FOLDER. Writes the certificate of
its test authority to FOLDER/ca.pem and its port, once it listens, to FOLDER/port; statements that it was sent to
FOLDER/statements.jsonl. Every rewrite below is listed with its reason; nothing in the project or in SQLMesh is patched.
"""

import gzip
import json
import re
import socket
import sys
from pathlib import Path
from string import Template

import duckdb
import fakesnow.arrow
import fakesnow.info_schema
import fakesnow.server
import pyarrow as pa
import pyarrow.compute as pc
import trustme
import uvicorn
from fakesnow.server import app
from fakesnow.transforms.stage import LOCAL_BUCKET_PATH

REWRITES = (
    # DuckDB keeps temporary tables in its own catalog, so a qualified temporary name fails:
    # "TEMPORARY table names can *only* use the "temp" catalog". SQLMesh drops it itself.
    (re.compile(r"^(/\*.*?\*/ )?CREATE (OR REPLACE )?TEMPORARY TABLE"), r"\1CREATE \2TABLE"),
    # Comments on columns, which fakesnow has not.
    (
        re.compile(r"^(/\*.*?\*/ )?ALTER (TABLE|VIEW) [^;]* COMMENT .*", re.DOTALL),
        "SELECT 'Statement executed successfully.' AS status",
    ),
    # Objects of the account and of loading, which fakesnow has not: it has no users to grant to and no S3 to read.
    (
        re.compile(
            r"^(CREATE (OR REPLACE )?(WAREHOUSE|ROLE|STORAGE INTEGRATION|PIPE|TASK)|(ALTER|DROP) (PIPE|TASK)"
            r"|ALTER (WAREHOUSE|STORAGE INTEGRATION|STAGE)|GRANT"
            r"|COPY INTO EGX_DW.LANDING)\b.*",
            re.DOTALL,
        ),
        "SELECT 'Statement executed successfully.' AS status",
    ),
    (
        re.compile(r"^DESC INTEGRATION \w+$"),
        "SELECT * FROM VALUES ('STORAGE_AWS_IAM_USER_ARN', 'String', 'arn:aws:iam::210987654321:user/fake', ''), "
        "('STORAGE_AWS_EXTERNAL_ID', 'String', 'FAKE_SFCRole=1_x', '')",
    ),
    (
        re.compile(r"^SHOW PIPES IN SCHEMA .*"),
        "SELECT 'LOAD_ARCHIVE' AS name, 'arn:aws:sqs:eu-central-1:210987654321:fake' AS notification_channel",
    ),
)


TYPES = {"BIGINT": "NUMBER(38, 0)", "INTEGER": "NUMBER(38, 0)", "DOUBLE": "REAL", "BOOLEAN": "BOOLEAN", "DATE": "DATE"}


def write_pandas(sql, bindings):
    """The statements of the connector's write_pandas (SQLMesh's seeds and Python models), in words fakesnow has.

    It binds names (CREATE TEMP STAGE identifier(?), PUT 'file://...' ?), which fakesnow's server reads only
    when they are written out, and asks INFER_SCHEMA, which fakesnow has not.
    """
    if not re.search(r"identifier\(\?\)|infer_schema\(|write_pandas|^PUT ", sql, re.I) or not bindings:
        return sql, bindings
    values = [bindings[k]["value"] for k in sorted(bindings, key=int)]
    if "infer_schema(" in sql.lower():
        folder = Path(LOCAL_BUCKET_PATH, *values[0].lstrip("@").replace('"', "").split("."))
        described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{folder}/*')").fetchall()
        rows = ", ".join(f"('{name}', '{TYPES.get(kind, 'VARCHAR')}')" for name, kind, *_ in described)
        return f"SELECT column1 AS COLUMN_NAME, column2 AS TYPE FROM VALUES {rows}", None
    for value in values:
        sql = re.sub(r"identifier\(\?\)|(?<== )\?|(?<==)\?|(?<= )\?(?= )", lambda _, value=value: value, sql, count=1, flags=re.I)
    sql = re.sub(r"FROM '(@[^']+)'", r"FROM \1", sql)
    sql = re.sub(r"USE_VECTORIZED_SCANNER=\w+|BINARY_AS_TEXT=\w+", "", sql)
    return sql, None


def scaled(table, rowtype, theirs=fakesnow.arrow.to_sf):
    """Numbers of up to 18 digits as Snowflake sends them: whole numbers and a scale, of which the connector makes floats."""
    for number, column in enumerate(table.columns):
        if pa.types.is_decimal(column.type) and column.type.precision <= 18:
            factor = pa.scalar(10**column.type.scale, pa.decimal128(19, 0))
            whole = pc.multiply(column, factor).cast(pa.int64())
            table = table.set_column(number, table.schema.field(number).with_type(pa.int64()), whole)
    return theirs(table, rowtype)


def timestamps(column, theirs=fakesnow.arrow.timestamp_to_sf_struct):
    """A NULL timestamp as NULL; fakesnow sends it as 1970-01-01."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    sent = theirs(column.fill_null(0))
    return pa.StructArray.from_arrays(sent.flatten(), fields=list(sent.type), mask=column.is_null())


def list_views():
    """INFORMATION_SCHEMA.TABLES lists views too, as Snowflake's does: without, SQLMesh makes those again that are there."""
    name = "SQL_CREATE_INFORMATION_SCHEMA_TABLES_VIEW"
    sql = getattr(fakesnow.info_schema, name).template
    assert "'BASE TABLE' AS" in sql
    assert "from duckdb_tables tables" in sql
    both = (
        "(SELECT database_name, schema_name, table_name, estimated_size, 'BASE TABLE' AS kind FROM duckdb_tables "
        "UNION ALL SELECT database_name, schema_name, view_name, NULL, 'VIEW' FROM duckdb_views WHERE NOT internal) tables"
    )
    sql = sql.replace("'BASE TABLE' AS", "tables.kind AS").replace("from duckdb_tables tables", f"from {both}")
    setattr(fakesnow.info_schema, name, Template(sql))


def login(send):
    """Connector 5 wants a master token in the answer to its login; fakesnow sends none."""
    start = {}

    async def answer(message):
        if message["type"] == "http.response.start":
            start.update(message)
            return
        body = json.loads(message["body"])
        if body.get("data"):
            body["data"] |= {
                "masterToken": body["data"]["token"],
                "validityInSeconds": 3600,
                "masterValidityInSeconds": 14400,
                "sessionId": 1,
            }
        message = {**message, "body": json.dumps(body).encode()}
        length = (b"content-length", str(len(message["body"])).encode())
        start["headers"] = [length if k == b"content-length" else (k, v) for k, v in start["headers"]]
        await send(start)
        await send(message)

    return answer


def in_public(scope):
    """A session of a database begins in its schema PUBLIC; fakesnow's begins in none, and then has no place for MERGE's table."""
    query = scope["query_string"]
    if b"databaseName=" in query and b"schemaName=" not in query:
        return scope | {"query_string": query + b"&schemaName=PUBLIC"}
    return scope


async def rewriting(scope, receive, send):
    if scope["type"] == "http" and "login-request" in scope["path"]:
        return await app(in_public(scope), receive, login(send))
    if scope["type"] != "http" or "query-request" not in scope["path"]:
        return await app(scope, receive, send)
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = dict(scope["headers"])
    if headers.get(b"content-encoding") == b"gzip":
        body = gzip.decompress(body)
    request = json.loads(body)
    with Path(sys.argv[1], "statements.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(request.get("sqlText", "")) + "\n")
    request["sqlText"], request["bindings"] = write_pandas(request.get("sqlText", ""), request.get("bindings"))
    for pattern, replacement in REWRITES:
        request["sqlText"] = pattern.sub(replacement, request.get("sqlText", ""))
    body = json.dumps(request).encode()
    scope = {**scope, "headers": [(k, v) for k, v in scope["headers"] if k not in (b"content-encoding", b"content-length")]}

    async def replay():
        return {"type": "http.request", "body": body, "more_body": False}

    await app(scope, replay, send)
    return None


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fakesnow.arrow.timestamp_to_sf_struct = timestamps
    fakesnow.server.to_sf = scaled
    list_views()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    (folder / "port.new").write_text(str(listener.getsockname()[1]))
    (folder / "port.new").rename(folder / "port")
    config = uvicorn.Config(
        rewriting,
        ssl_certfile=str(folder / "cert.pem"),
        ssl_keyfile=str(folder / "key.pem"),
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
