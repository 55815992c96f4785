"""Readers' copy of the gold layer: a DuckDB file takes one process at a time, Parquet files any number."""

from sqlglot import exp

from sqlmesh import macro


@macro()
def publish(evaluator, schema: exp.Expression):
    """after_all: @PUBLISH(gold) copies the promoted views of a schema to Parquet beside the DuckDB file.

    Only on DuckDB and only for prod. DuckDB writes a temporary file and renames it: a reader sees the old or the new.
    """
    if evaluator.gateway != "duckdb" or evaluator.locals.get("this_env") != "prod":
        return []
    import locations  # here, because SQLMesh stores a macro's imports, and the paths must not be stored

    folder = locations.warehouse() + "/gold"
    views = [exp.to_table(view, dialect="duckdb") for view in evaluator.locals.get("views", [])]
    return [
        exp.Command(
            this="COPY",
            expression=f"(SELECT * FROM {view.sql('duckdb', identify=True)}) "
            f"TO '{folder}/{view.name.lower()}.parquet' (FORMAT parquet)",
        )
        for view in views
        if view.db.lower() == schema.name.lower()
    ]
