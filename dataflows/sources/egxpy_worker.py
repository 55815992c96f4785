"""The process that asks TradingView by way of egxpy: `serve`, and in each fork one question (docs/egxpy.md says why).

Imports egxpy and tradingview-datafeed, and nothing of this project but connectors.workers. Its arguments are two addresses,
of TradingView's data and of its sign-in; empty ones are TradingView's own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import egxpy.download
import pandas as pd
import tvDatafeed
import websocket

from connectors.workers import Message, serve

INTRADAY: Final = {
    "1 Minute": tvDatafeed.Interval.in_1_minute,
    "5 Minute": tvDatafeed.Interval.in_5_minute,
    "30 Minute": tvDatafeed.Interval.in_30_minute,
}
_ERRORS: Final = ("symbol_error", "series_error", "critical_error", "protocol_error")
_MARGIN_SECONDS: Final = 0.5  # within its seconds a question should fail by itself, and say why


class Failed(Exception):
    """Why there are no bars: `kind` is unknown, refused, unreachable, silent, dropped, empty or unexpected."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class _Talk:
    """What the server said in the one connection of this process."""

    deadline: float
    connected: bool = False
    completed: bool = False
    timed_out: bool = False
    failure: Failed | None = None
    rows: dict[float, list[float | None]] = field(default_factory=dict)
    """A bar's start in epoch seconds -> open, high, low, close and, if given, volume."""


_talk: _Talk
_data_url: str | None = None
_token: str | None = None


class _Socket(websocket.WebSocket):
    """The library's socket, which ends at a deadline whatever the server sends, and notes what it said."""

    def recv(self) -> str:
        left = _talk.deadline - time.monotonic()
        try:
            if left <= 0:
                raise websocket.WebSocketTimeoutException("the deadline has passed")
            self.settimeout(left)
            text = str(super().recv())
        except (websocket.WebSocketTimeoutException, TimeoutError):
            _talk.timed_out = True
            raise
        for packet in packets(text):
            if packet.startswith("~h~"):
                self.send(f"~m~{len(packet)}~m~{packet}")
            elif packet.startswith("{"):
                try:
                    self._note(json.loads(packet))
                except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                    _talk.failure = Failed("unexpected", f"{packet[:80]}...: {error}")
                    raise
        return text

    def _note(self, message: dict[str, Any]) -> None:
        name, values = message.get("m"), message.get("p", [])
        if name in _ERRORS:
            reason = str(values[-1]) if values else ""
            unknown = name == "symbol_error" and "invalid symbol" in reason
            _talk.failure = Failed("unknown" if unknown else "refused", f"{name}: {reason}")
            raise _talk.failure  # the library would wait for an answer that never comes
        if name == "timescale_update":
            for series in values[1].values():
                for row in series.get("s", ()) if isinstance(series, dict) else ():
                    start, *prices = row["v"]
                    _talk.rows[float(start)] = prices
        elif name == "series_completed":
            _talk.completed = True


def packets(text: str) -> Iterator[str]:
    """The packets `~m~<length>~m~<text>` of a frame."""
    at = 0
    while head := re.compile(r"~m~(\d+)~m~").match(text, at):
        at = head.end() + int(head[1])
        yield text[head.end() : at]


def _connect(url: str, timeout: float | None = None, **options: Any) -> Any:
    left = max(0.1, _talk.deadline - time.monotonic())
    made = websocket.create_connection(_data_url or url, timeout=left, class_=_Socket, **options)
    _talk.connected = True
    return made


class _Client(tvDatafeed.TvDatafeed):  # type: ignore[misc]  # the library has no types
    """In place of the library's TvDatafeedLive, whose lock is never released once a call of it has failed."""

    token: str

    def __init__(self) -> None:
        super().__init__()
        self.token = _token or self.token

    def get_hist(self, *args: Any, timeout: float = -1, **kwargs: Any) -> Any:
        """:arg timeout: as egxpy passes it; the deadline of the question counts."""
        try:
            return super().get_hist(*args, **kwargs)
        finally:
            if self.ws is not None:
                self.ws.close(timeout=0)


def bars(symbol: str, exchange: str, interval: str, count: int) -> list[list[float | None]]:
    """The newest bars, oldest first: start in epoch seconds, open, high, low, close, volume; None where nothing was given.

    :raises Failed: there are none.
    """
    try:
        if interval in INTRADAY:
            frame = _Client().get_hist(symbol, exchange, INTRADAY[interval], count)
        else:
            frame = egxpy.download.get_OHLCV_data.__wrapped__(symbol, exchange, interval, count)
    except websocket.WebSocketBadStatusException as error:
        raise Failed("unreachable", f"HTTP {error.status_code}") from None
    except (OSError, websocket.WebSocketException) as error:
        if _talk.connected:
            raise Failed("dropped", f"the connection broke: {error}") from None
        raise Failed("unreachable", f"{error or type(error).__name__}") from None
    except Exception as error:  # the library trips over an answer without bars
        if _talk.completed and not _talk.rows:
            raise Failed("empty", "no bars") from None
        raise _talk.failure or Failed("unexpected", f"{type(error).__name__}: {error}") from None
    if _talk.failure is not None:
        raise _talk.failure
    if not _talk.completed:
        raise Failed("silent", "no complete answer in time") if _talk.timed_out else Failed("dropped", "the server hung up")
    if frame is None or not len(frame) or not _talk.rows:
        raise Failed("empty", "no bars")
    return rows(frame, f"{exchange}:{symbol}", _talk.rows)


def rows(frame: pd.DataFrame, name: str, given: dict[float, list[float | None]]) -> list[list[float | None]]:
    """The rows of the library's table, checked, its naive times taken as UTC, its false zeros taken out.

    The library writes 0.0 for an absent price, and from the first absent volume on 0.0 for every volume: a zero counts only
    if the server `given` it.
    """
    columns = ["open", "high", "low", "close", "volume"]
    if frame.index.name != "datetime" or frame.index.tz is not None or not set(columns) <= set(frame.columns):
        raise Failed("unexpected", f"a table of {frame.index.name!r} and {list(frame.columns)}")
    if others := set(frame["symbol"]) - {name}:
        raise Failed("unexpected", f"bars of {', '.join(sorted(map(str, others)))}")
    made = []
    for start, values in zip(frame.index.tz_localize("UTC"), frame[columns].to_numpy().tolist(), strict=True):
        seconds = start.timestamp()
        truth = [*given.get(seconds, []), *[None] * 5]
        made.append([seconds, *(value if value and value == value else truth[at] for at, value in enumerate(values))])
    return made


def sign_in(username: str, password: str) -> str:
    """TradingView's token for a user. Raises Failed: the library does not tell why there is none."""
    requests = tvDatafeed.main.requests
    post, passing = requests.post, ""

    def noting(**arguments: Any) -> Any:
        nonlocal passing
        try:
            answer = post(**arguments)
        except OSError as error:
            passing = str(error)
            raise
        if answer.status_code == 429 or answer.status_code >= 500:
            passing = f"HTTP {answer.status_code}"
        return answer

    requests.post = noting  # in this fork alone: the library says nothing of it
    client = tvDatafeed.TvDatafeed(username, password)
    if passing:
        raise Failed("unreachable", f"the sign-in page cannot be reached: {passing}")
    if client.token == "unauthorized_user_token":  # noqa: S105 - what the library says instead of an error
        raise Failed("refused", "the sign-in failed: a wrong name or password, or a captcha that is asked for")
    return str(client.token)


def answer(request: Message, seconds: float) -> Message:
    """`{"rows": ...}` or `{"token": ...}`, or `{"failed": kind, "why": text}`."""
    global _talk, _token
    _talk = _Talk(time.monotonic() + seconds - _MARGIN_SECONDS)
    _token = request.get("token")
    try:
        if "password" in request:
            return {"token": sign_in(request["username"], request["password"])}
        return {"rows": bars(request["symbol"], request["exchange"], request["interval"], request["bars"])}
    except Failed as failed:
        return {"failed": failed.kind, "why": str(failed)}


def main(data_url: str, sign_in_url: str) -> None:
    global _data_url
    known = hasattr(getattr(egxpy.download, "get_OHLCV_data", None), "__wrapped__")
    if not known or not hasattr(egxpy.download, "TvDatafeedLive"):
        sys.exit("egx: the egxpy that is installed is not the one this was made for: run `just egxpy`")
    _data_url = data_url or None
    os.environ["TZ"] = "UTC"  # the library gives times without a zone, in the host's
    time.tzset()
    logging.disable(logging.CRITICAL)  # the library logs what is reported here with its reason
    socket.setdefaulttimeout(30)
    tvDatafeed.main.create_connection = _connect
    egxpy.download.TvDatafeedLive = _Client
    if sign_in_url:
        tvDatafeed.TvDatafeed._TvDatafeed__sign_in_url = sign_in_url
    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
