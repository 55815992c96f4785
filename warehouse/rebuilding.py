"""What SQLMesh does, at a first insert and at a restatement, with the rows of a model that reads its own."""

import typing as t

from sqlglot import exp


def replaces_all(snapshot: t.Any, own: t.Any) -> bool:
    """Whether SQLMesh will replace the model's table with what its query gives, since no interval of it counts as loaded.

    From a query that gives what differs from the table's rows, it would keep that and lose the rest.

    Args:
        snapshot: SQLMesh's, of the model that is evaluated; None in a unit test.
        own: the model's table, as it is evaluated; that of a development environment has intervals of its own.
    """
    if snapshot is None:
        return False
    names = [exp.to_table(table, dialect="snowflake").name.upper() for table in (own, snapshot.table_name(is_deployable=True))]
    return not (snapshot.intervals if names[0] == names[1] else snapshot.dev_intervals)
