"""Data frames of Python models on their way into tables."""

import typing as t

import pandas as pd
from sqlglot import exp


def stored(context: t.Any, snapshot: t.Any, frame: pd.DataFrame, columns: dict[str, str]) -> t.Iterator[pd.DataFrame | exp.Query]:
    """What a Python model gives SQLMesh of a frame: itself or, on DuckDB, a query of it.

    Of a frame SQLMesh makes a table first, and the model's from that.

    Args:
        context: SQLMesh's, of the evaluation.
        snapshot: SQLMesh's, of the model that is evaluated; None in a unit test, which takes frames only.
        frame: the rows; column names in capitals.
        columns: column -> type of the model.
    """
    if snapshot is None or context.engine_adapter.dialect != "duckdb":
        yield frame
        return
    adapter = context.engine_adapter
    adapter.cursor.register("model_frame", frame)
    try:
        typed = (
            exp.cast(exp.column(name.upper(), quoted=True), kind).as_(name.upper(), quoted=True) for name, kind in columns.items()
        )
        yield exp.select(*typed).from_("model_frame")
    finally:
        adapter.cursor.unregister("model_frame")
