"""The one place where the engines differ: how the bars' archive is read."""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

import datetime as dt
import glob
from pathlib import Path

from sqlglot import exp, parse_one
from sqlmesh import macro
from sqlmesh.utils.errors import SQLMeshError


@macro()
def archive(evaluator, start: exp.Expression, end: exp.Expression):
    """FROM @ARCHIVE(@start_ds, @end_ds): the lines delivered on those days (UTC), unparsed.

    Columns: line (text of one record), archive_object (path under the archive), source_line (from 1), delivered_on, object_size
    (bytes; NULL on Snowflake).
    Snowflake: the landing table that COPY INTO or Snowpipe fills from the stage (deploy/snowflake/). Each knows only what it has
    loaded itself, and an object written again after a crash is loaded again: hence DISTINCT.
    DuckDB: the archive's files themselves, one glob a delivery date; those of an s3:// archive are copied first (s3_copy.py).
    Both keep a line that is not JSON, so that bronze can name it; READ_JSON would drop it or stop.

    Raises:
        SQLMeshError: the archive cannot be reached, or has nothing where bronze has rows.
    """
    if evaluator.gateway == "snowflake" or evaluator.runtime_stage == "testing":  # a unit test gives the landing table
        lines = exp.select(
            "COALESCE(line, '') AS line",
            "archive_object",
            "source_line",
            "delivered_on",
            "NULL::BIGINT AS object_size",
            dialect="snowflake",
        )
        return lines.distinct().from_("landing.stock_prices_archive").subquery("archive")

    nothing = (
        exp.select(
            "NULL::TEXT AS line",
            "NULL::TEXT AS archive_object",
            "NULL::BIGINT AS source_line",
            "NULL::DATE AS delivered_on",
            "NULL::BIGINT AS object_size",
            dialect="duckdb",
        )
        .where("FALSE")
        .subquery("archive")
    )
    if evaluator.runtime_stage != "evaluating":
        return nothing

    import locations  # here, because SQLMesh stores a macro's imports, and the paths must not be stored
    import vanished

    archive = root = locations.archive()
    first, last = dt.date.fromisoformat(start.name), dt.date.fromisoformat(end.name)
    if "://" in root:
        import s3_copy

        root = f"{locations.warehouse()}/archive"
        s3_copy.fetch(archive, Path(root), first, last)
    elif not Path(root).is_dir():
        raise SQLMeshError(
            f"The archive {root} is not there: run the platform first, or set EGX_WAREHOUSE_ARCHIVE to a folder or s3://..."
        )
    days = locations.days_with_objects(root, first, last)
    if not days:  # a glob that matches nothing is an error in DuckDB
        if not locations.days_with_objects(root) and (why := vanished.everything(evaluator.engine_adapter, archive)):
            raise SQLMeshError(why)
        return nothing
    place = glob.escape(root).replace("'", "''")
    files = [f"'{place}/streaming/date={day}/*/*.json'" for day in days]
    # A variable, because years of days would take SQLGlot a second to carry along; one of them while the macro is made, because
    # DuckDB looks for all files then, too.
    evaluator.engine_adapter.execute(f"SET VARIABLE archive_files = [{files[0]}]")
    # A macro inside DuckDB, so that this text reaches it as it stands: SQLGlot, whose dialect here is Snowflake, would
    # take UNNEST for FLATTEN and drop TRY. MATERIALIZED, or DuckDB reads the files anew for what is computed from them:
    # 7,000 instead of 14,000 objects a second. Bytes that are not UTF-8 become one line of text that is not JSON.
    evaluator.engine_adapter.execute(
        """
        CREATE OR REPLACE TEMPORARY MACRO archive_lines(root_length) AS TABLE
        WITH objects AS MATERIALIZED (
          SELECT
            SUBSTR(filename, root_length + 2) AS archive_object,
            size AS object_size,
            STRING_SPLIT(RTRIM(COALESCE(TRY(DECODE(content)), content::TEXT), CHR(10)), CHR(10)) AS lines
          FROM READ_BLOB(GETVARIABLE('archive_files'))
        )
        SELECT
          UNNEST(lines) AS line,
          archive_object,
          GENERATE_SUBSCRIPTS(lines, 1) AS source_line,
          REGEXP_EXTRACT(archive_object, '/date=([0-9-]+)/', 1)::DATE AS delivered_on,
          object_size
        FROM objects
        """
    )
    evaluator.engine_adapter.execute(f"SET VARIABLE archive_files = [{', '.join(files)}]")
    columns = "l.line, l.archive_object, l.source_line, l.delivered_on, l.object_size"
    lines = f"SELECT {columns} FROM archive_lines({len(root)}) AS l"
    return parse_one(lines, dialect="duckdb").subquery("archive")
