"""Readers' copy of the gold layer: a DuckDB file takes one process at a time, Parquet files any number."""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

from sqlglot import exp
from sqlmesh import macro


@macro()
def publish(evaluator, schema: exp.Expression):
    """after_all: @PUBLISH(gold) copies the promoted views of a schema to Parquet files in the staging folder (publishing.py).

    Only on DuckDB and only for prod; of intraday bars the last 31 days.
    """
    if evaluator.gateway != "duckdb" or evaluator.locals.get("this_env") != "prod":
        return []
    import publishing  # here, because SQLMesh stores a macro's imports, and the paths must not be stored

    copies = []
    for view in (exp.to_table(view, dialect="duckdb") for view in evaluator.locals.get("views", [])):
        if view.db.lower() != schema.name.lower():
            continue
        # In lower case, as readers write them: Snowflake's dialect folds names to upper case.
        columns = ", ".join(f'"{column}" AS {column.lower()}' for column in evaluator.engine_adapter.columns(view))
        query = f"SELECT {columns} FROM {view.sql('duckdb', identify=True)}"
        if view.name.lower() == "fct_stock_intraday_prices":
            # A market's minutes are millions of rows a year, and every run would write them all.
            query += " WHERE trade_date > (SELECT MAX(trade_date) - 31 FROM GOLD.FCT_STOCK_INTRADAY_PRICES)"
        file = publishing.staging() / f"{view.name.lower()}.parquet"
        copies.append(exp.Command(this="COPY", expression=f"({query}) TO '{file}' (FORMAT parquet)"))
    return copies
