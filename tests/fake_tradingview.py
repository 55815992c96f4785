"""A loopback TradingView: the websocket that charts are fed from, as tradingview-datafeed speaks to it, and the sign-in page.

    with FakeTradingView() as server: ...        # server.url is its address
    python -m tests.fake_tradingview             # stands alone, and prints its address

Packets are `~m~<length>~m~<text>`, several may share a frame. A connection's life: a greeting; `quote_add_symbols` is answered
by a quote, `resolve_symbol` by symbol_resolved or symbol_error, `create_series` by series_loading, timescale_update (bars) and
series_completed, or by series_error; in between come heartbeats.

Modes, of the server or of a symbol:
    ok               the bars
    split_frame      the bars and their end in two frames
    live             the bars, then updates without end
    no_volume        bars without volume
    mid_no_volume    the second bar has no volume
    null_close       the second bar's close is null
    zero_volume      the second bar's volume is 0, truly
    empty            an answer without bars
    unknown          symbol_error: invalid symbol
    denied           symbol_error: permission denied
    heartbeat_only   a symbol_error that nobody sent: heartbeats are all that comes
    silent           nothing after the greeting
    chatty           quotes without end instead of bars
    drop_mid         hangs up instead of sending the bars
    hang_up          hangs up when it hears the symbol
    garbage          bars whose text is no bars
    refuse           HTTP 429 (a server's mode only: the symbol is not known yet)
"""

from __future__ import annotations

import datetime as dt
import http.server
import json
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, Self
from urllib.parse import parse_qs

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from dataflows.bar import Interval
from dataflows.calendar import MINUTES, egx

CODES: Final[dict[str, Interval]] = {
    "1": "1 Minute",
    "5": "5 Minute",
    "30": "30 Minute",
    "1D": "Daily",
    "1W": "Weekly",
    "1M": "Monthly",
}
MOST_BARS: Final = 5_000
Row = list[Any]
"""Epoch seconds of a bar's start, open, high, low, close, volume."""
Bars = Callable[[str, str, int], list[Row]]
"""Symbol with exchange, interval code, number of bars -> the newest, oldest first."""


def walk(end: dt.datetime) -> Bars:
    """Made-up bars of the exchange's sessions, each the same whenever it is asked for; none starts after `end` (aware)."""

    def close(symbol: str, code: str, at: dt.datetime) -> float:
        return round(random.Random(f"{symbol}/{code}/{at.timestamp()}").uniform(50, 60), 2)

    def bars(symbol: str, code: str, count: int) -> list[Row]:
        interval = CODES[code]
        days = count // (200 // MINUTES.get(interval, 200)) * {"1W": 8, "1M": 32}.get(code, 2) + 40
        date = end.date()
        starts = [at for at in egx().expected(interval, date - dt.timedelta(days=days), date) if at <= end]
        rows = []
        for before, at in pairwise(starts[-count - 1 :]):
            prices = close(symbol, code, before), close(symbol, code, at)
            volume = float(random.Random(f"{symbol}/{at.timestamp()}").randint(1_000, 5_000_000))
            rows.append(
                [at.timestamp(), prices[0], round(max(prices) * 1.003, 2), round(min(prices) * 0.997, 2), prices[1], volume]
            )
        return rows

    return bars


def packet(content: Mapping[str, Any] | str) -> str:
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    return f"~m~{len(text)}~m~{text}"


def packets(text: str) -> Iterator[str]:
    at = 0
    while head := re.compile(r"~m~(\d+)~m~").match(text, at):
        at = head.end() + int(head[1])
        yield text[head.end() : at]


class FakeTradingView:
    """The server, on a free port of the loopback address."""

    def __init__(
        self,
        mode: str | Callable[[str], str] = "ok",
        *,
        bars: Bars | None = None,
        delay_seconds: float = 0,
        heartbeat_seconds: float = 0.5,
        port: int = 0,
    ) -> None:
        """
        :arg mode: of every symbol, or a function of the symbol without its exchange.
        :arg delay_seconds: from the question to the bars.
        """
        self.mode, self.delay_seconds, self._heartbeat_seconds = mode, delay_seconds, heartbeat_seconds
        self.bars = bars or walk(dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC))
        self.connections = 0
        self.refused = 0
        self.open = 0
        self.most_open = 0
        self.heartbeats_answered = 0
        self.asked: list[tuple[str, str, int]] = []
        """Symbol with exchange, interval code, number of bars, of each create_series."""
        self.tokens: list[str] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        log = logging.getLogger("tests.fake_tradingview")
        log.setLevel(logging.ERROR)
        self._server = serve(
            self._talk, "127.0.0.1", port, process_request=self._admit, compression=None, max_size=None, logger=log
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="tradingview", daemon=True)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/socket.io/websocket"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join(10)

    def wait_until_closed(self, seconds: float = 10) -> bool:
        """Whether no connection is open, at the latest after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self.open == 0, seconds)

    def wait_until_open(self, count: int, seconds: float = 30) -> bool:
        """Whether so many connections have been open at once, at the latest after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self.most_open >= count, seconds)

    def _mode(self, symbol: str) -> str:
        return self.mode(symbol.rpartition(":")[2]) if callable(self.mode) else self.mode

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.mode == "refuse":
            self.refused += 1
            return connection.respond(429, "too many requests\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        with self._changed:
            self.connections += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self._changed.notify_all()
        ended = threading.Event()
        try:
            connection.send(packet({"session_id": f"<0.{self.connections}.0>", "protocol": "json"}))
            threading.Thread(target=self._beat, args=(connection, ended), daemon=True).start()
            self._converse(connection)
        except ConnectionClosed:
            pass
        finally:
            ended.set()
            with self._changed:
                self.open -= 1
                self._changed.notify_all()

    def _beat(self, connection: ServerConnection, ended: threading.Event) -> None:
        number = 0
        while not ended.wait(self._heartbeat_seconds):
            number += 1
            try:
                connection.send(packet(f"~h~{number}"))
            except ConnectionClosed:
                return

    def _converse(self, connection: ServerConnection) -> None:
        symbol = ""
        for frame in connection:
            for text in packets(str(frame)):
                if text.startswith("~h~"):
                    self.heartbeats_answered += 1
                    continue
                message = json.loads(text)
                name, values = message["m"], message["p"]
                if name == "set_auth_token":
                    self.tokens.append(values[0])
                elif name == "quote_add_symbols":
                    symbol = values[1]
                    if self._mode(symbol) == "hang_up":
                        return
                    if self._mode(symbol) not in ("silent", "heartbeat_only"):
                        self._quote(connection, values[0], symbol)
                elif name == "resolve_symbol":
                    symbol = json.loads(values[2].removeprefix("="))["symbol"]
                    self._resolve(connection, values, symbol)
                elif name == "create_series" and not self._series(connection, values, symbol):
                    return

    def _quote(self, connection: ServerConnection, session: str, symbol: str) -> None:
        values = {"lp": 80.5, "volume": 1000, "currency_code": "EGP", "exchange": "EGX"}
        state = "error" if self._mode(symbol) == "unknown" else "ok"
        quote = {"m": "qsd", "p": [session, {"n": symbol, "s": state, "v": values}]}
        connection.send(packet(quote) + packet({"m": "quote_completed", "p": [session, symbol]}))

    def _resolve(self, connection: ServerConnection, values: list[Any], symbol: str) -> None:
        mode = self._mode(symbol)
        errors = {"unknown": "invalid symbol", "denied": "permission denied"}
        if mode in errors:
            connection.send(packet({"m": "symbol_error", "p": [*values[:2], errors[mode]]}))
        elif mode not in ("silent", "heartbeat_only"):
            about = {
                "name": symbol.rpartition(":")[2],
                "full_name": symbol,
                "timezone": "Africa/Cairo",
                "session": "1000-1430:12345",
            }
            connection.send(packet({"m": "symbol_resolved", "p": [*values[:2], about]}))

    def _series(self, connection: ServerConnection, values: list[Any], symbol: str) -> bool:
        """Answers create_series; false hangs up."""
        session, series, turn, _, code, count = values[:6]
        mode = self._mode(symbol)
        self.asked.append((symbol, code, count))
        if mode in ("silent", "heartbeat_only"):
            return True
        if self.delay_seconds:
            self._stopping.wait(self.delay_seconds)
        if mode in ("unknown", "denied"):
            connection.send(packet({"m": "series_error", "p": [session, series, turn, "resolve error"]}))
            return True
        connection.send(packet({"m": "series_loading", "p": [session, series, turn]}))
        if mode == "drop_mid":
            return False
        if mode == "chatty":
            while not self._stopping.wait(0.05):
                self._quote(connection, session, symbol)
        rows = [] if mode == "empty" else self._rows(symbol, code, count, mode)
        points = [{"i": number, "v": row} for number, row in enumerate(rows)]
        content = {"node": "fake", "s": points, "ns": {"d": "", "indexes": []}, "t": turn, "lbs": {"bar_close_time": 0}}
        changes = {"index": 0, "zoffset": 0, "changes": [], "marks": [], "index_diff": []}
        update = packet({"m": "timescale_update", "p": [session, {series: content}, changes]})
        done = packet({"m": "series_completed", "p": [session, series, "delayed_streaming_900", turn]})
        for frame in [update, done] if mode == "split_frame" else [update + done]:
            connection.send(frame)
        while mode == "live" and not self._stopping.wait(0.05):
            last = {"i": len(rows) - 1, "v": rows[-1]}
            connection.send(packet({"m": "du", "p": [session, {series: {"s": [last], "t": turn}}]}))
        return True

    def _rows(self, symbol: str, code: str, count: int, mode: str) -> list[Row]:
        rows = [list(row) for row in self.bars(symbol, code, min(count, MOST_BARS))]
        if mode == "no_volume":
            return [row[:5] for row in rows]
        if mode == "mid_no_volume":
            rows[1] = rows[1][:5]
        elif mode == "null_close":
            rows[1][4] = None
        elif mode == "zero_volume":
            rows[1][5] = 0.0
        elif mode == "garbage":
            rows[1] = ["never", "was", "a", "bar", "of", "it"]
        return rows


class FakeSignIn:
    """TradingView's sign-in page, for one name and password."""

    def __init__(self, username: str, password: str, token: str) -> None:
        self.attempts = 0
        self.token, self.status = token, 200

        class Page(http.server.BaseHTTPRequestHandler):
            def do_POST(page) -> None:
                form = parse_qs(page.rfile.read(int(page.headers["Content-Length"])).decode())
                self.attempts += 1
                good = form.get("username") == [username] and form.get("password") == [password]
                body = json.dumps(
                    {"user": {"auth_token": self.token}} if good else {"error": "", "code": "invalid_credentials"}
                ).encode()
                page.send_response(self.status)
                page.send_header("Content-Length", str(len(body)))
                page.end_headers()
                page.wfile.write(body)

            def log_message(page, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.url = f"http://127.0.0.1:{self._server.server_port}/accounts/signin/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="sign-in", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    with FakeTradingView(bars=walk(dt.datetime.now(dt.UTC))) as server:
        print(server.url, flush=True)
        threading.Event().wait()
