"""Refuses to read an archive that has gone: what it lacks would be taken out of bronze."""

import typing as t

BRONZE = "bronze.stock_prices_raw"


def everything(adapter: t.Any, archive: str) -> str | None:
    """What is wrong where prod's bronze has rows, and the archive not one delivery date.

    Args:
        adapter: SQLMesh's connection to the warehouse.
        archive: where the archive was looked for.
    Returns:
        What to say, or None where bronze has no rows either, as in a new project.
    """
    if not adapter.table_exists(BRONZE):
        return None
    (rows,) = adapter.fetchone(f"SELECT COUNT(*) FROM {BRONZE}")  # noqa: S608 - the project's own name
    if not rows:
        return None
    what = f"The archive {archive} has no streaming/date=... folder, and bronze has {rows:,} rows"
    return f"{what}: mount it, or correct EGX_WAREHOUSE_ARCHIVE"
