"""Print the market snapshot from the published Parquet files: `python -m warehouse.snapshot`."""

# ruff: noqa: S608 -- SQL of the project's own names and paths; no outsider's text is in it

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))  # as SQLMesh does for the project's own modules
import locations

COLOURS = {"BULLISH": "green", "BEARISH": "red", "HIGH": "yellow"}
COLUMNS = ("symbol", "company_name", "trade_date", "current_price", "currency", "price_change_pct", "volume", "ma_7d", "ma_30d",
           "rsi_14", "trend_signal", "volume_signal", "is_rolled_up")  # fmt: skip


def snapshot(folder: str) -> list[tuple[object, ...]]:
    """Rows of gold.vw_gold_market_snapshot, best performer first.

    Args:
        folder: where `plan` and `run` publish gold.
    Raises:
        FileNotFoundError: nothing is published there yet.
    """
    file = Path(folder, "vw_gold_market_snapshot.parquet")
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: run `sqlmesh -p warehouse plan` first")
    query = f"SELECT {', '.join(COLUMNS)} FROM READ_PARQUET(?) ORDER BY price_change_pct DESC NULLS LAST, symbol"
    return duckdb.connect().execute(query, [str(file)]).fetchall()


def shown(value: object) -> str:
    """A cell: grouped numbers, a dash for what is not known, signals in colour."""
    if value is None:
        return "–"
    if isinstance(value, Decimal):
        return f"{value:,.2f}" if value == 0 or abs(value) >= 1 else f"{value:,.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dt.date):
        return value.isoformat()
    text = str(value)
    return f"[{COLOURS[text]}]{text}[/]" if text in COLOURS else text


def market_table(rows: list[tuple[object, ...]]) -> Table:
    table = Table(title="EGX market snapshot, from gold", caption="* day rolled up from intraday bars; – not enough days yet")
    for name in ("Symbol", "Company", "Day"):
        table.add_column(name, no_wrap=name != "Company")
    for name in ("Price", "Change %", "Volume", "Mean 7d", "Mean 30d", "RSI"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Trend")
    table.add_column("Volume is")
    for symbol, company, day, price, currency, change, volume, mean_7, mean_30, rsi, trend, volume_signal, rolled in rows:
        change_text = shown(change)
        if isinstance(change, Decimal) and change:
            change_text = f"[{'green' if change > 0 else 'red'}]{change:+.2f}[/]"
        price_text = shown(price) + ("" if currency in ("EGP", None) else f" {currency}")
        table.add_row(
            str(symbol), str(company), shown(day) + ("*" if rolled else ""), price_text, change_text, shown(volume),
            shown(mean_7), shown(mean_30), shown(rsi), shown(trend), shown(volume_signal),
        )  # fmt: skip
    return table


def main() -> int:
    try:
        rows = snapshot(f"{locations.warehouse()}/gold")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if not rows:
        print("gold has no rows: no run has succeeded yet, or the archive is empty", file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 150).print(market_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
