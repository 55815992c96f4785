"""dbt-duckdb over the same archive, with the models that SQLMesh renders."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import sys
import typing as t
from pathlib import Path

import duckdb

PROJECT = Path(__file__).resolve().parents[2]
Timed = t.Callable[[list[str], dict[str, str], Path], float]
CONFIG = """
name: egx
version: '1.0'
profile: egx
model-paths: [models]
models: {egx: {+materialized: table}}
flags: {send_anonymous_usage_stats: false}
"""
PROFILE = """
egx:
  target: bench
  outputs:
    bench: {type: duckdb, path: '@PATH', threads: 1, settings: {preserve_insertion_order: false}}
"""
MOMENTUM = """
import sys
sys.path.insert(0, '@WAREHOUSE')
from momentum import changed_bars, computed_rows

def model(dbt, session):
    dbt.config(materialized='incremental', incremental_strategy='delete+insert', unique_key=['symbol', 'trade_date'])
    dbt.ref('stock_prices_daily')
    own = f'{dbt.this}' if dbt.is_incremental else "(@NOTHING)"
    rows = computed_rows(session.execute(changed_bars(f'{dbt.this.schema}.stock_prices_daily', own)).df())
    return rows.rename(columns=str.lower)
"""


class Dbt:
    """A dbt project written from the SQLMesh one."""

    def __init__(self, archive: Path, folder: Path, program: Path, timed: Timed) -> None:
        self.archive, self.folder, self.timed = archive, folder, timed
        self.program = program / "dbt"
        self.environment = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}

    def write_models(self, environment: dict[str, str]) -> None:
        """In a process of its own: SQLMesh keeps the DuckDB file locked as long as its process lives."""
        self.timed([sys.executable, "-m", "bench.warehouse.dbt", str(self.archive), str(self.folder)], environment, PROJECT)

    def write(self) -> None:
        """Each model as the SQL that SQLMesh sends to DuckDB; references as dbt's ref(), dates as dbt's variables."""
        from sqlglot import exp
        from sqlmesh import Context
        from sqlmesh.core.macros import RuntimeStage

        context = Context(paths=str(PROJECT / "warehouse"))
        models = self.folder / "models"
        shutil.rmtree(self.folder, ignore_errors=True)
        models.mkdir(parents=True)
        (self.folder / "dbt_project.yml").write_text(CONFIG)
        (self.folder / "profiles.yml").write_text(PROFILE.replace("@PATH", str(self.folder / "dbt.duckdb")))
        tests = []
        for model in context.models.values():
            name = model.name.split(".")[-1].lower()
            if model.kind.is_seed or model.kind.is_external:
                if model.kind.is_seed:
                    self.copy_table(context, model.name, models, name)
                continue
            keys = list(dict.fromkeys(key.name.lower() for grain in model.grains for key in grain.find_all(exp.Column)))
            if name == "stock_prices_momentum":
                made = MOMENTUM.replace("@WAREHOUSE", str(PROJECT / "warehouse")).replace("@NOTHING", self.nothing(model))
                (models / f"{name}.py").write_text(made)
            elif name == "stock_prices_historical":
                self.copy_table(context, model.name, models, name)
            else:
                query = model.render_query_or_raise(
                    start="2001-01-01",
                    end="2001-12-31",
                    runtime_stage=RuntimeStage.EVALUATING,
                    engine_adapter=context.engine_adapter,
                    snapshots=None,
                )  # fmt: skip
                sql = query.sql("duckdb", pretty=True)
                sql = sql.replace("2001-01-01", "{{ var('first') }}").replace("2001-12-31", "{{ var('last') }}")
                own = "{% if is_incremental() %}{{ this }}{% else %}(" + self.nothing(model) + "){% endif %}"
                sql = sql.replace(model.fqn, own)
                sql = re.sub(r'"EGX_DW"\."\w+"\."(\w+)"', lambda found: "{{ ref('" + found[1].lower() + "') }}", sql)
                if name == "stock_prices_raw":
                    sql = self.read_archive(sql)
                (models / f"{name}.sql").write_text(self.header(model, keys) + sql)
            if model.kind.is_view or not keys:
                continue
            columns = "\n".join(f"      - name: {key}\n        data_tests: [not_null]" for key in keys)
            unique = " || '|' || ".join(f"{key}::VARCHAR" for key in keys)
            hook = f"    config: {{post_hook: {json.dumps(after)}}}\n" if (after := self.afterwards(model)) else ""
            tests.append(
                f'  - name: {name}\n{hook}    data_tests:\n      - unique: {{column_name: "{unique}"}}\n    columns:\n{columns}'
            )
        (models / "tests.yml").write_text("version: 2\nmodels:\n" + "\n".join(tests) + "\n")
        context.close()

    def header(self, model: t.Any, keys: list[str]) -> str:
        if model.kind.is_view:
            return "{{ config(materialized='view') }}\n"
        if model.kind.is_incremental_by_unique_key:
            unique = ", ".join(f"'{key}'" for key in keys)
            return f"{{{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key=[{unique}]) }}}}\n"
        if model.kind.is_incremental_by_time_range:
            return "{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='delivered_on') }}\n"
        return ""

    def nothing(self, model: t.Any) -> str:
        """A model's columns without rows: what it reads as its own before it is there."""
        columns = ", ".join(f"NULL::{kind.sql('duckdb')} AS {name}" for name, kind in model.columns_to_types.items())
        return f"SELECT {columns} WHERE FALSE"

    def afterwards(self, model: t.Any) -> str:
        """A model's statement after its query, as dbt's post_hook."""
        from sqlmesh.core.macros import RuntimeStage

        statements = model.render_post_statements(runtime_stage=RuntimeStage.EVALUATING, start="2001-01-01", end="2001-12-31")
        sql = "; ".join(statement.sql("duckdb") for statement in statements).replace(model.fqn, "{{ this }}")
        return re.sub(r'"EGX_DW"\."\w+"\."(\w+)"', lambda found: "{{ this.schema }}." + found[1].lower(), sql)

    def read_archive(self, sql: str) -> str:
        """SQLMesh's macro reads the days of the interval; so does this, with the same function over the same files."""
        files = "[{% for day in var('days').split(',') %}'" + f"{self.archive}/streaming/date=" + "{{ day }}/*/*.json'"
        files += "{{ ',' if not loop.last }}{% endfor %}]"
        reader = f"""(
            WITH objects AS MATERIALIZED (
              SELECT SUBSTR(filename, {len(str(self.archive)) + 2}) AS archive_object, size AS object_size,
                STRING_SPLIT(RTRIM(COALESCE(TRY(DECODE(content)), content::TEXT), CHR(10)), CHR(10)) AS lines
              FROM READ_BLOB({files})
            )
            SELECT UNNEST(lines) AS "LINE", archive_object AS "ARCHIVE_OBJECT", GENERATE_SUBSCRIPTS(lines, 1) AS "SOURCE_LINE",
              REGEXP_EXTRACT(archive_object, '/date=([0-9-]+)/', 1)::DATE AS "DELIVERED_ON", object_size AS "OBJECT_SIZE"
            FROM objects
        ) AS "ARCHIVE\""""
        start = sql.index("FROM (", sql.index('AS "RECORD"')) + len("FROM ")
        end = sql.index(') AS "ARCHIVE"', start) + len(') AS "ARCHIVE"')
        return sql[:start] + reader + sql[end:]

    def copy_table(self, context: t.Any, name: str, models: Path, target: str) -> None:
        """Seeds and files of history: the same rows, which both tools load once."""
        file = self.folder / f"{target}.parquet"
        context.engine_adapter.execute(f"COPY (SELECT * FROM {name}) TO '{file}' (FORMAT parquet)")
        (models / f"{target}.sql").write_text(f"SELECT * FROM READ_PARQUET('{file}')")

    def build(self, first: dt.date, last: dt.date) -> float:
        days = sorted(path.name.removeprefix("date=") for path in (self.archive / "streaming").iterdir())
        days = [day for day in days if str(first) <= day <= str(last)]
        variables = f"{{first: '{first}', last: '{last}', days: '{','.join(days)}'}}"
        return self.timed([str(self.program), "build", "--profiles-dir", ".", "--vars", variables], self.environment, self.folder)

    def cold(self, day: dt.date) -> float:
        (self.folder / "dbt.duckdb").unlink(missing_ok=True)
        return self.build(dt.date(2000, 1, 1), day)

    def day(self, day: dt.date) -> float:
        return self.build(day - dt.timedelta(1), day)

    def differing(self, theirs: Path) -> int:
        """Rows of the daily prices and indicators that SQLMesh's file has and dbt's has not, or the other way round."""
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{theirs}' AS EGX_DW (READ_ONLY); ATTACH '{self.folder}/dbt.duckdb' AS dbt (READ_ONLY)")
            count = 0
            for schema, table in (("gold", "fct_stock_daily_prices"), ("silver", "stock_prices_momentum")):
                pair = f"EGX_DW.{schema}.{table}", f"dbt.main.{table}"
                for one, other in (pair, pair[::-1]):
                    count += connection.execute(f"SELECT COUNT(*) FROM (FROM {one} EXCEPT ALL FROM {other})").fetchone()[0]
            return count


if __name__ == "__main__":
    Dbt(Path(sys.argv[1]), Path(sys.argv[2]), Path(), lambda *_: 0.0).write()
