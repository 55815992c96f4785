"""Models that keep their rows from run to run and compute what has changed."""

from rebuilding import replaces_all
from sqlglot import exp, parse_one
from sqlmesh import macro


@macro()
def is_rebuild(evaluator):
    """@IS_REBUILD(): whether all rows of the model are replaced, and none that it has may count as computed (rebuilding.py)."""
    if evaluator.runtime_stage != "evaluating":
        return exp.false()
    return exp.convert(replaces_all(evaluator.locals.get("snapshot"), evaluator.locals.get("this_model")))


def delete_but(evaluator, key: str, kept: exp.Expression, condition: str = "TRUE"):
    """DELETE of the model's rows that meet a condition and whose key a query or table does not have."""
    if evaluator.runtime_stage != "evaluating":
        return []
    keys = exp.select(*key.split(", ")).from_(kept)
    gone = exp.and_(condition, parse_one(f"({key})").isin(query=keys.subquery()).not_())
    return exp.delete(evaluator.locals["this_model"]).where(gone)


@macro()
def keep_days_of(evaluator, days: exp.Expression):
    """After the query: @KEEP_DAYS_OF(silver.stock_prices_daily). Rows of company days that are not among these go."""
    table = exp.maybe_parse(days.sql(dialect="snowflake"), dialect="snowflake", into=exp.From, prefix="FROM")
    return delete_but(evaluator, "symbol, trade_date", table.this)


@macro()
def keep_bars_of_files(evaluator):
    """After the query: @KEEP_BARS_OF_FILES(). Rows of bars that came in a file that is no longer there go."""
    bars = parse_one(
        """
        SELECT COALESCE(r.new_symbol, h.symbol) AS symbol, h.bar_interval, h.bar_time
        FROM silver.stock_prices_history AS h
        LEFT JOIN bronze.symbol_history AS r
          ON h.symbol = r.old_symbol
        """,
        dialect="snowflake",
    )
    return delete_but(evaluator, "symbol, bar_interval, bar_time", bars.subquery("bars"), "data_source = 'HISTORICAL'")
