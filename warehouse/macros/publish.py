"""Readers' copy of the gold layer: a DuckDB file takes one process at a time, Parquet files any number."""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

from sqlglot import exp
from sqlmesh import macro


@macro()
def publish(evaluator, schema: exp.Expression):
    """after_all: @PUBLISH(gold) copies the promoted views of a schema to Parquet files in the staging folder (publishing.py).

    Only for prod; of intraday bars the last 31 days. DuckDB writes the files itself, from Snowflake the rows are fetched.
    """
    if evaluator.locals.get("this_env") != "prod":
        return []
    import publishing  # here, because SQLMesh stores a macro's imports, and the paths must not be stored

    copies = []
    for view in (exp.to_table(view, dialect=evaluator.dialect) for view in evaluator.locals.get("views", [])):
        if view.db.lower() != schema.name.lower():
            continue
        # Of the model and not of Snowflake, where every whole number is a NUMBER(38, 0).
        fetched = evaluator.gateway == "snowflake"
        types = evaluator.columns_to_types(view) if fetched else evaluator.engine_adapter.columns(view)
        # In lower case, as readers write them: Snowflake's dialect folds names to upper case.
        columns = ", ".join(f'"{column}" AS "{column.lower()}"' for column in types)
        query = f"SELECT {columns} FROM {view.sql(evaluator.dialect, identify=True)}"
        if view.name.lower() == "fct_stock_intraday_prices":
            # A market's minutes are millions of rows a year, and every run would write them all.
            query += " WHERE trade_date > (SELECT MAX(trade_date) - 31 FROM GOLD.FCT_STOCK_INTRADAY_PRICES)"
        file = publishing.staging() / f"{view.name.lower()}.parquet"
        if fetched:
            evaluator.engine_adapter.execute(query)
            publishing.write(evaluator.engine_adapter.cursor.fetch_arrow_batches(), types, file)
        else:
            copies.append(exp.Command(this="COPY", expression=f"({query}) TO '{file}' ({publishing.FORMAT})"))
    return copies
