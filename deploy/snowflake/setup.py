"""One-time set-up of Snowflake for the warehouse: `python -m deploy.snowflake.setup --help`.

Runs the numbered SQL files beside it, in order, through snowflake-connector-python, with the names given; every statement
is one that may be run again. Sign in by SNOWFLAKE_ACCOUNT, SNOWFLAKE_USER and SNOWFLAKE_PASSWORD, SNOWFLAKE_PRIVATE_KEY_PATH
or SNOWFLAKE_TOKEN, as a user that may use ACCOUNTADMIN (it makes roles and an integration).
"""

import argparse
import json
import os
import re
import sys
import typing as t
from pathlib import Path
from string import Template

FOLDER = Path(__file__).resolve().parent
OBJECTS = ("1_warehouse.sql", "2_landing.sql", "3_storage.sql", "4_roles.sql")
NAME = r"[A-Za-z_][A-Za-z0-9_]{0,254}"
NEEDED = ("archive_url", "aws_role_arn", "user")
ALLOWED = {
    "archive_url": r"s3://[a-z0-9.-]{3,63}(/[A-Za-z0-9._=-]+)*",
    "aws_role_arn": r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+",
    "load_cron": r"[0-9*/,-]+( [0-9A-Z*/,L#-]+){4}",
    "warehouse_size": r"XSMALL|SMALL|MEDIUM|LARGE",
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=str(__doc__).split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--archive-url", help="the archive as the legs write it: s3://bucket or s3://bucket/prefix")
    parser.add_argument("--aws-role-arn", help="IAM role that may read the bucket; Snowflake will assume it")
    parser.add_argument("--user", help="user that runs SQLMesh; gets the transformer's role")
    parser.add_argument("--database", default="EGX_DW")
    parser.add_argument("--warehouse", default="EGX_WH")
    parser.add_argument("--warehouse-size", default="XSMALL")
    parser.add_argument("--transformer", default="EGX_TRANSFORMER", help="role that runs SQLMesh")
    parser.add_argument("--reader", default="EGX_READER", help="role that reads gold")
    parser.add_argument("--integration", default="EGX_ARCHIVE", help="storage integration")
    parser.add_argument("--load", choices=("task", "pipe"), default="task", help="a COPY at times of the day, or Snowpipe")
    parser.add_argument("--load-cron", default="55 1,13,14 * * *", help="when the task runs, Africa/Cairo")
    parser.add_argument("--dry-run", action="store_true", help="print the statements, connect to nothing; needs no argument")
    chosen = parser.parse_args(given)
    for name, value in vars(chosen).items():
        if isinstance(value, str) and not re.fullmatch(ALLOWED.get(name, NAME), value):
            parser.error(f"--{name.replace('_', '-')} {value!r} is not of the form {ALLOWED.get(name, NAME)}")
    for name in (name for name in NEEDED if getattr(chosen, name) is None):
        option = name.replace("_", "-")
        if not chosen.dry_run:
            parser.error(f"--{option} is needed (--dry-run prints the SQL without)")
        setattr(chosen, name, f"<{option}>")
    return chosen


def statements(chosen: argparse.Namespace, *files: str) -> list[str]:
    """The SQL of these files, in order, comments left out."""
    names = {name: value for name, value in vars(chosen).items() if isinstance(value, str)}
    names["copy"] = Template((FOLDER / "copy.sql").read_text(encoding="utf-8")).substitute(names).strip()
    found: list[str] = []
    for file in files:
        text = re.sub(r"^--.*\n", "", (FOLDER / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
        found += [part.strip() for part in Template(text).substitute(names).split(";\n") if part.strip()]
    return [statement.rstrip(";") for statement in found]


def trust_policy(described: t.Iterable[tuple[t.Any, ...]]) -> dict[str, t.Any]:
    """The trust policy for the IAM role, from the rows of DESC INTEGRATION (property, type, value, default).

    Raises:
        LookupError: the integration does not say who it is.
    """
    values = {row[0]: row[2] for row in described}
    missing = [name for name in ("STORAGE_AWS_IAM_USER_ARN", "STORAGE_AWS_EXTERNAL_ID") if not values.get(name)]
    if missing:
        raise LookupError(f"DESC INTEGRATION gave no {' and no '.join(missing)}")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": values["STORAGE_AWS_IAM_USER_ARN"]},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": values["STORAGE_AWS_EXTERNAL_ID"]}},
            }
        ],
    }


def connect() -> t.Any:
    """A connection by SNOWFLAKE_*.

    Raises:
        SystemExit: a setting is missing; says which.
    """
    import snowflake.connector

    given = {
        name: os.environ[f"SNOWFLAKE_{name.upper()}"]
        for name in ("account", "user", "password", "token", "authenticator", "host", "port", "role")
        if os.environ.get(f"SNOWFLAKE_{name.upper()}")
    }
    if key := os.environ.get("SNOWFLAKE_PRIVATE_KEY_PATH"):
        given["private_key_file"] = key
        if passphrase := os.environ.get("SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"):
            given["private_key_file_pwd"] = passphrase
    if "token" in given:
        given.setdefault("authenticator", "oauth")
    if "account" not in given:
        raise SystemExit("SNOWFLAKE_ACCOUNT is not set: organisation-account, as in your Snowflake URL")
    if not {"password", "token", "private_key_file"} & set(given):
        raise SystemExit("Set SNOWFLAKE_PASSWORD, SNOWFLAKE_PRIVATE_KEY_PATH or SNOWFLAKE_TOKEN")
    given.setdefault("role", "ACCOUNTADMIN")
    return snowflake.connector.connect(**given)


def main(given: list[str] | None = None) -> int:
    chosen = arguments(given)
    objects, loading = statements(chosen, *OBJECTS), statements(chosen, f"5_load_{chosen.load}.sql")
    if chosen.dry_run:
        print("\n\n".join(f"{statement};" for statement in objects + loading))
        return 0
    from snowflake.connector.errors import ProgrammingError

    def run(statement: str) -> None:
        print(statement.split("\n")[0], flush=True)
        cursor.execute(statement)

    with connect() as connection, connection.cursor() as cursor:
        for statement in objects:
            run(statement)
        described = cursor.execute(f"DESC INTEGRATION {chosen.integration}").fetchall()
        print(f"\nTrust policy for {chosen.aws_role_arn}:\n{json.dumps(trust_policy(described), indent=2)}\n", flush=True)
        try:
            for statement in loading:
                run(statement)
        except ProgrammingError as error:
            print(f"{error}\nNothing is loaded yet: give the role the trust policy above, then run this again", file=sys.stderr)
            return 1
        if chosen.load == "pipe":
            pipes = cursor.execute(f"SHOW PIPES IN SCHEMA {chosen.database}.LANDING").fetchall()
            columns = [column[0].lower() for column in cursor.description]
            for pipe in pipes:
                channel = dict(zip(columns, pipe, strict=True))["notification_channel"]
                print(f"Queue for the bucket's event notifications: {channel}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
