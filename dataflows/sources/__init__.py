"""Where bars come from, chosen by `source.kind`: a simulated session, files played again, or TradingView by way of egxpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a child process of a source imports this package, and needs none of them
    from connectors.polling import Poll
    from dataflows.bar import Bar
    from dataflows.settings import Settings


class SourceError(Exception):
    """A source cannot give bars; the message says why (with file and line, where there is one) and what to do."""


def build(settings: Settings) -> tuple[Poll[Bar], str]:
    """The poll of the chosen source, and what its bars are, for people."""
    from dataflows.sources import egxpy, replay, simulated

    if settings.source.kind == "egxpy":
        return egxpy.poll(settings), "egxpy"
    if settings.source.kind == "replay":
        return replay.poll(settings), f"replay of {settings.source.replay.path}"
    return simulated.poll(settings), "SIMULATED session: not real prices"
