"""Moving windows over a symbol's trading days."""

from sqlglot import exp, parse_one
from sqlmesh import macro


def frame(days: int) -> str:
    return f"(PARTITION BY symbol ORDER BY trade_date ROWS BETWEEN {days - 1} PRECEDING AND CURRENT ROW)"


@macro()
def moving_average(evaluator, column: exp.Expression, days: exp.Expression):
    """@MOVING_AVERAGE(adj_close, 7): mean of a symbol's last 7 trading days, NULL until 7 are there.

    A sum of DECIMAL is exact, so the mean does not depend on the order in which an engine adds: both engines, and a
    run and a rebuild, give the same last digit.
    """
    value, window = column.sql(dialect="snowflake"), frame(int(days.name))
    return parse_one(
        f"CASE WHEN COUNT({value}) OVER {window} = {days.name} THEN (SUM({value}) OVER {window})::DOUBLE / {days.name} END",
        dialect="snowflake",
    )


@macro()
def moving_deviation(evaluator, column: exp.Expression, days: exp.Expression):
    """@MOVING_DEVIATION(adj_close, 20): population standard deviation, from exact sums, NULL until 20 days are there."""
    # one digit wider, so that DuckDB computes the square in 128 bits: DECIMAL(18) times DECIMAL(18) overflows 64
    value, window, n = f"({column.sql(dialect='snowflake')}::DECIMAL(19, 8))", frame(int(days.name)), days.name
    return parse_one(
        f"""
        CASE
          WHEN COUNT({value}) OVER {window} = {n}
          THEN SQRT(GREATEST(
            (SUM({value} * {value}) OVER {window})::DOUBLE / {n} - POWER((SUM({value}) OVER {window})::DOUBLE / {n}, 2), 0
          ))
        END
        """,
        dialect="snowflake",
    )
