"""Models that keep their rows from run to run and compute what has changed."""

from sqlglot import exp, parse_one
from sqlmesh import macro


@macro()
def empty_before_rebuild(evaluator):
    """Before the query: @EMPTY_BEFORE_REBUILD(). A model that reads its own rows must find none where all are replaced.

    At a first insert and at a restatement SQLMesh replaces the table with what the query gives. From a query that gives what
    differs from the table's rows, it would keep that and lose the rest.
    """
    snapshot = evaluator.locals.get("snapshot")
    if evaluator.runtime_stage != "evaluating" or snapshot is None:
        return []
    table = exp.to_table(evaluator.locals["this_model"], dialect=evaluator.dialect)
    deployable = exp.to_table(snapshot.table_name(is_deployable=True), dialect=evaluator.dialect)
    is_dev = table.name.upper() != deployable.name.upper()
    return [] if (snapshot.dev_intervals if is_dev else snapshot.intervals) else exp.delete(table)


@macro()
def keep_days_of(evaluator, days: exp.Expression):
    """After the query: @KEEP_DAYS_OF(silver.stock_prices_daily). Rows of company days that are not among these go."""
    if evaluator.runtime_stage != "evaluating":
        return []
    kept = exp.select("symbol", "trade_date").from_(days.sql(dialect="snowflake"), dialect="snowflake")
    return exp.delete(evaluator.locals["this_model"]).where(parse_one("(symbol, trade_date)").isin(query=kept.subquery()).not_())
