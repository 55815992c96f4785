# ruff: noqa: E501, S608 - queries, each on a line
"""EGX history: the gold layer, from its Parquet files through DuckDB or from Snowflake, by the same SQL."""

from __future__ import annotations

from typing import Any

from deploy.grafana.definitions.panels import BARS, CANDLES, GOLD, LIMIT, PERCENT, SIGNED, choice, column, dashboard, panel


def history(source: dict[str, str]) -> dict[str, Any]:
    name = "egx-history" if source is GOLD else "egx-history-snowflake"
    title = "EGX history" if source is GOLD else "EGX history (Snowflake)"
    daily = "gold.fct_stock_daily_prices"

    def sql(kind: str, title: str, query: str, box: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
        return panel(kind, title, query, box, source, **more)

    # Quoted, or Snowflake would hand the names over in upper case, and panels find columns by their very names.
    def columns(*names: str, **expressions: str) -> str:
        return ", ".join(
            f'{expression} AS "{name}"' for name, expression in ({name: name for name in names} | expressions).items()
        )

    counting = "SUM(CASE WHEN status = 'ok' THEN {} ELSE {} END)"
    time = columns(time="CAST(trade_date AS TIMESTAMP)")
    panels = [
        sql(
            "table",
            "Market snapshot",
            f"SELECT {columns('symbol', 'company_name', 'company_name_ar', 'sector', 'currency', 'trade_date', 'current_price', 'price_change_pct', 'volume', 'ma_7d', 'ma_30d', 'rsi_14', 'high_52w', 'low_52w', 'trend_signal', 'volume_signal')} FROM gold.vw_gold_market_snapshot ORDER BY price_change_pct DESC, symbol",
            (0, 0, 24, 11),
            overrides=[column("price_change_pct", **PERCENT), column("volume", unit="locale")],
        ),
        sql(
            "candlestick",
            "${symbol}",
            f"SELECT {time}, {columns('volume', open='open_price', high='high_price', low='low_price', close='close_price')} FROM {daily} WHERE symbol = '${{symbol}}' ORDER BY trade_date",
            (0, 11, 14, 11),
            options=CANDLES,
        ),
        sql(
            "timeseries",
            "${symbol}: adjusted close and averages",
            f"SELECT {time}, {columns('adj_close', 'ma_7d', 'ma_30d', 'ma_200d')} FROM gold.vw_gold_price_history WHERE symbol = '${{symbol}}' ORDER BY trade_date",
            (14, 11, 10, 11),
        ),
        sql(
            "bargauge",
            "Top movers",
            f"SELECT {columns('symbol', 'price_change_pct')} FROM gold.vw_gold_top_movers ORDER BY position, symbol LIMIT 10",
            (0, 22, 8, 9),
            unit="percent",
            thresholds=SIGNED,
            options=BARS,
        ),
        sql(
            "bargauge",
            "Volume leaders",
            f"SELECT {columns('symbol', 'volume')} FROM gold.vw_gold_volume_leaders ORDER BY position, symbol LIMIT 10",
            (8, 22, 8, 9),
            unit="short",
            options=BARS,
        ),
        sql(
            "timeseries",
            "Breadth",
            f"SELECT {time}, {columns('advancers', 'decliners', 'new_highs_52w', 'new_lows_52w')} FROM gold.vw_gold_market_breadth ORDER BY trade_date",
            (16, 22, 8, 9),
        ),
        sql(
            "timeseries",
            "${symbol}: RSI 14",
            f"SELECT {time}, {columns('rsi_14')} FROM {daily} WHERE symbol = '${{symbol}}' AND NOT rsi_14 IS NULL ORDER BY trade_date",
            (0, 31, 8, 8),
            min=0,
            max=100,
        ),
        sql(
            "timeseries",
            "Value traded, about",
            f"SELECT {time}, {columns('traded_value')} FROM gold.vw_gold_market_breadth ORDER BY trade_date",
            (8, 31, 8, 8),
            unit="currency:EGP",
        ),
        sql(
            "table",
            "Data quality",
            f"SELECT {columns('check_name', ok=counting.format(1, 0), to_look_at=counting.format(0, 1))} FROM gold.vw_gold_data_quality GROUP BY check_name ORDER BY check_name",
            (16, 31, 8, 8),
            overrides=[column("to_look_at", thresholds=LIMIT, custom__cellOptions={"type": "color-text"})],
        ),
    ]
    return dashboard(
        name,
        title,
        panels,
        [choice("symbol", f"SELECT {columns('symbol')} FROM gold.dim_stock WHERE trading_days > 0 ORDER BY symbol", source)],
        "now-1y",
        "5m",
    )
