"""Files of price history, as three sites export them, read into rows that bronze.stock_prices_historical stores.

| site | header | times | volume |
|---|---|---|---|
| investing.com | Date, Price, Open, High, Low, Vol., Change % | MM/DD/YYYY or DD/MM/YYYY, by a setting | 1.25M, 830.5K, - |
| Yahoo Finance | Date, Open, High, Low, Close, Adj Close, Volume | YYYY-MM-DD | 1250000 |
| TradingView | time, open, high, low, close, Volume | Unix seconds or ISO; the interval is in the file's name | 1250000 |

The symbol is a folder below batch/ (`symbol=COMI/`, or without one `COMI/`) or the start of the file's name (`COMI Historical
Data.csv`, `COMI.CA.csv`, `EGX_DLY_COMI, 1D.csv`). Prices are taken as traded; Yahoo's `Adj Close` is not used.
Weekly and monthly exports have the header of daily ones: their rows are too far apart, and the file is rejected.
"""

import csv
import datetime as dt
import io
import itertools
import re
import statistics
import typing as t
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlmesh.utils.errors import SQLMeshError

INTERVALS = {"1D": "Daily", "1W": "Weekly", "1M": "Monthly", "1": "1 Minute", "5": "5 Minute", "30": "30 Minute"}
SYMBOL = r"(?=[0-9._]*[A-Z])[A-Z0-9._]{1,20}"
# Rows that are in memory at once, 1 kB each.
BATCH = 200_000
SUFFIXES = {"K": 10**3, "M": 10**6, "B": 10**9}

Row = dict[str, t.Any]


def changed_files(
    archive: str, date_order: str, known: t.Mapping[str, str]
) -> tuple[set[str], t.Iterator[tuple[set[str], list[Row]]]]:
    """The CSV files under `{archive}/batch/` that are new or changed, and which of the known ones have gone.

    Args:
        archive: a folder or s3://bucket/prefix.
        date_order: MDY or DMY, for files of investing.com.
        known: path under the archive -> the `file_version` with which its rows were read.
    Returns:
        The known paths that are no longer there; and, in turns of about BATCH rows, the paths of new and changed files with every
        line of them, as a bar or with a `reject_reason`.
    Raises:
        ValueError: date_order is neither.
        SQLMeshError: the archive is not there, cannot be read (while files are, too), or has no batch/ where some are known.
    """
    if date_order not in ("MDY", "DMY"):
        raise ValueError(f"EGX_INVESTING_DATES is {date_order!r}: set it to MDY (12/31/2025) or DMY (31/12/2025)")
    files = {name: (f"{date_order} {state}", changed, read) for name, changed, state, read in csv_files(archive)}
    if known and not files and not has_batch(archive):
        raise SQLMeshError(
            f"The archive {archive} has no batch/, and bronze has the rows of {len(known):,} files from there: mount it, or "
            "correct EGX_WAREHOUSE_ARCHIVE; if they were taken out on purpose, make batch/ (on S3 an object batch/none)"
        )

    def batches() -> t.Iterator[tuple[set[str], list[Row]]]:
        names: set[str] = set()
        rows: list[Row] = []
        for name, (version, changed, read) in files.items():
            if known.get(name) != version:
                rows += ({**row, "file_version": version} for row in read_file(name, changed, read(), date_order))
                names.add(name)
                if len(rows) >= BATCH:
                    yield names, rows
                    names, rows = set(), []
        if names:
            yield names, rows

    return known.keys() - files.keys(), batches()


def has_batch(archive: str) -> bool:
    """Whether the archive has a folder for files of history, though it may be empty."""
    if archive.startswith("s3://"):
        import s3_copy

        return s3_copy.any_under(archive, "batch/")
    return Path(archive, "batch").is_dir()


def csv_files(archive: str) -> t.Iterator[tuple[str, dt.datetime, str, t.Callable[[], bytes]]]:
    """Of each CSV file: path under the archive, UTC time of its last change, what differs once it is changed, and its reader."""
    if archive.startswith("s3://"):
        import s3_copy

        bucket, root = s3_copy.place(archive)
        s3 = s3_copy.client()

        def content(key: str) -> bytes:
            with s3_copy.reached(archive, "read"):
                return s3.get_object(Bucket=bucket, Key=key)["Body"].read()

        with s3_copy.reached(archive, "read"):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{root}batch/"):
                for found in page.get("Contents", []):
                    if (key := found["Key"]).lower().endswith(".csv"):
                        changed = found["LastModified"].astimezone(dt.UTC).replace(tzinfo=None)
                        yield key.removeprefix(root), changed, f"{found['ETag']} {changed}", partial(content, key)
        return
    if not Path(archive).is_dir():
        raise SQLMeshError(f"The archive {archive} is not there: mount it, or set EGX_WAREHOUSE_ARCHIVE to a folder or s3://...")
    for path in sorted(Path(archive, "batch").rglob("*")):
        if path.suffix.lower() == ".csv" and path.is_file():
            file = path.stat()
            changed = dt.datetime.fromtimestamp(file.st_mtime, dt.UTC).replace(tzinfo=None)
            # a copy with the same size may keep the time of the change, but not that of the inode
            yield path.relative_to(archive).as_posix(), changed, f"{file.st_size} {changed} {file.st_ctime_ns}", path.read_bytes


def read_file(name: str, changed: dt.datetime, content: bytes, date_order: str) -> t.Iterator[Row]:
    """The rows of one file; a file that cannot be read at all is one rejected row that says why."""
    blank: Row = dict.fromkeys(("symbol", "exchange", "bar_interval", "bar_time", "open", "high", "low", "close", "volume"))
    blank |= {
        "ingested_at": changed,
        "source": None,
        "reject_reason": None,
        "record": "",
        "archive_object": name,
        "source_line": 1,
    }
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = next(lines, None)
    except UnicodeDecodeError:
        yield blank | {"reject_reason": "the file is not UTF-8"}
        return
    except csv.Error as error:
        yield blank | {"reject_reason": f"no CSV: {error}"}
        return
    if not header:
        yield blank | {"reject_reason": "the file is empty"}
        return
    columns = [column.strip().lower() for column in header]
    try:
        symbol = symbol_of(name)
    except ValueError as error:
        yield blank | {"record": ",".join(header), "reject_reason": str(error)}
        return
    site, close = site_of(columns)
    if site is None:
        yield blank | {"record": ",".join(header), "reject_reason": "the header is of no known site"}
        return
    interval = interval_of(name) if site == "tradingview" else "Daily"
    if interval is None:
        yield blank | {
            "record": ",".join(header),
            "reject_reason": f"the interval in the file's name is none of {', '.join(INTERVALS)}",
        }
        return
    rows: list[Row] = []
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            rows.append(blank | {"source_line": lines.line_num, "reject_reason": f"no CSV from here on: {error}"})
            break
        if not any(cells):
            continue
        row = blank | {
            "symbol": symbol,
            "exchange": "EGX",
            "source": site,
            "bar_interval": interval,
            "record": ",".join(cells),
            "source_line": lines.line_num,
        }
        try:
            if len(cells) < len(columns):
                raise ValueError(f"{len(cells)} cells under {len(columns)} columns")
            cell = dict(zip(columns, (value.strip() for value in cells), strict=False))
            row["bar_time"] = time_of(cell[columns[0]], site, interval, date_order)
            row["ingested_at"] = max(changed, row["bar_time"])  # a copied file may keep a time before its bars
            row |= {
                field: price(cell[column], field)
                for field, column in (("open", "open"), ("high", "high"), ("low", "low"), ("close", close))
            }
            row["volume"] = volume(cell.get("volume") or cell.get("vol.") or "")
        except ValueError as error:
            row["reject_reason"] = str(error)
        rows.append(row)
    if interval == "Daily" and (days := usual_gap_days(rows)) >= 5:
        reason = f"its rows are {days:.0f} days apart, as of weekly or monthly bars: export daily ones"
        yield blank | {"record": ",".join(header), "reject_reason": reason}
        return
    yield from rows


def usual_gap_days(rows: list[Row]) -> float:
    """The median number of days from one bar to the next; 0 for less than 4 bars, which may lie around holidays."""
    times = sorted(row["bar_time"] for row in rows if row["reject_reason"] is None)
    gaps = [(later - earlier) / dt.timedelta(days=1) for earlier, later in itertools.pairwise(times)]
    return statistics.median(gaps) if len(gaps) >= 3 else 0


def site_of(columns: list[str]) -> tuple[str | None, str]:
    """Which site wrote this header, and its name for the closing price."""
    if {"date", "price", "open", "high", "low"} <= set(columns):
        return "investing", "price"
    if {"date", "open", "high", "low", "close"} <= set(columns):
        return "yahoo", "close"
    if {"time", "open", "high", "low", "close"} <= set(columns):
        return "tradingview", "close"
    return None, ""


def symbol_of(name: str) -> str:
    """The symbol that a file's path says: its folders `symbol=COMI`, or else `COMI`, and the start of its name.

    Raises:
        ValueError: they say none, or not the same.
    """
    *folders, file = name.split("/")[1:]
    said = {folder.removeprefix("symbol=") for folder in folders if folder.startswith("symbol=")}
    said = said or {folder for folder in folders if re.fullmatch(SYMBOL, folder)}
    if found := re.fullmatch(rf"(?:EGX_(?:DLY_)?)?({SYMBOL}?)(?:\.CA)?(?:[ ,_-].*)?\.csv", file):
        said.add(found[1])
    if len(said) > 1:
        raise ValueError(f"the folders and the file's name say {' and '.join(sorted(said))}: leave one symbol")
    if not said:
        raise ValueError("no folder is a symbol, nor is the start of the file's name")
    (symbol,) = said
    if not re.fullmatch(SYMBOL, symbol):
        raise ValueError(f"{symbol!r} is not a symbol")
    return symbol


def interval_of(name: str) -> str | None:
    """From a name as TradingView gives it: `EGX_COMI, 1D.csv`, `EGX_COMI, 5_a1b2c.csv`; Daily without one, None for others."""
    found = re.search(r", ?([^\W_]+)(?:_\w+)?(?: ?\(\d+\))?\.csv$", name, re.IGNORECASE)
    return INTERVALS.get(found[1].upper()) if found else "Daily"


def time_of(text: str, site: str, interval: str, date_order: str) -> dt.datetime:
    """The bar's start, UTC without zone. A Daily bar starts at 10:00 in Cairo."""
    cairo = ZoneInfo("Africa/Cairo")
    try:
        if site == "investing":
            time = dt.datetime.strptime(text, "%m/%d/%Y" if date_order == "MDY" else "%d/%m/%Y").replace(tzinfo=cairo)
        elif text.isdecimal():
            time = dt.datetime.fromtimestamp(int(text), dt.UTC)
        else:
            time = dt.datetime.fromisoformat(text)
            time = time if time.tzinfo else time.replace(tzinfo=cairo)
    except (ValueError, OverflowError):
        wanted = ("MM/DD/YYYY" if date_order == "MDY" else "DD/MM/YYYY") if site == "investing" else "a time"
        raise ValueError(f"{text!r} is not {wanted}") from None
    if interval == "Daily":
        day = time.astimezone(cairo)
        time = day.replace(hour=10, minute=0, second=0, microsecond=0)
    if time.year < 1990:
        raise ValueError(f"{text!r} is before 1990")
    if time > dt.datetime.now(dt.UTC) + dt.timedelta(days=1):
        raise ValueError(f"{text!r} is still to come")
    return time.astimezone(dt.UTC).replace(tzinfo=None)


def price(text: str, field: str) -> str | None:
    """A price as decimal text, None where the site gave none."""
    if text in ("", "-", "null"):
        return None
    try:
        value = number(text)
    except InvalidOperation:
        raise ValueError(f"{field} {text!r} is not a price") from None
    # What DECIMAL(18, 4) does not round to 0, and less than bronze.stock_prices_raw takes for no price.
    if not value.is_finite() or not Decimal("0.00005") <= value < Decimal(10) ** 8:
        raise ValueError(f"{field} {text!r} is not a price")
    return f"{value:f}"


def number(text: str) -> Decimal:
    """A number that may have commas between its thousands, and nowhere else.

    Raises:
        InvalidOperation: it is none.
    """
    if "," in text and not re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):
        raise InvalidOperation
    return Decimal(text.replace(",", ""))


def volume(text: str) -> str | None:
    """A count of shares from `1.25M`, `830.5K`, `1,250,000` or `-`."""
    if text in ("", "-", "null"):
        return None
    scale = SUFFIXES.get(text[-1].upper())
    try:
        value = number(text[:-1]) * scale if scale else number(text)
    except InvalidOperation:
        raise ValueError(f"volume {text!r} is not a count") from None
    if not value.is_finite() or not 0 <= value < 10**13:
        raise ValueError(f"volume {text!r} is not a count")
    return f"{value:.0f}"
