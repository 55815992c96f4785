"""docs/operations.md says of itself that each message stands there as the program prints it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.dataflows.jobs import ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text()
MESSAGES = re.findall(r"(?m)^\| `([^`]+)`", TEXT.split("## Troubleshooting")[1].split("## What is kept")[0])
_PLACE = re.compile(r"%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[sdrgf]")


def templates() -> Iterator[list[str]]:
    """Every text of the code, as its fixed parts."""
    for folder in ("connectors", "dataflows", "page", "warehouse"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                    yield "".join("\0" if part is None else str(part) for part in parts).split("\0")
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield _PLACE.split(node.value)


PATTERNS = [
    re.compile(".*".join(map(re.escape, parts)), re.DOTALL) for parts in templates() if sum(map(len, parts)) >= 12
]  # shorter ones would match by chance


def is_printed(message: str) -> bool:
    """Whether the code has this text, with anything for each …, or puts it together of two: an error and what to do."""
    if any(pattern.fullmatch(message) for pattern in PATTERNS):
        return True
    head, _, tail = message.rpartition(": ")
    tails = (f"…: {tail}", tail)
    return any(pattern.fullmatch(text) for text in tails for pattern in PATTERNS) and any(
        pattern.fullmatch(head) for pattern in PATTERNS
    )


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_quoted_is_one_that_the_code_prints(message: str) -> None:
    assert is_printed(message)


def test_there_are_messages_and_the_test_can_fail() -> None:
    assert len(MESSAGES) > 20
    assert not is_printed("InfluxDB at … does not reply (…): check influxdb.url")
    assert not is_printed("no Kafka broker answers at …: start one")


def test_every_recipe_and_setting_that_is_named_is_there() -> None:
    recipes = set(re.findall(r"(?m)^([a-z-]+)(?: [^:\n]*)?:", (ROOT / "justfile").read_text()))
    assert set(re.findall(r"`just ([a-z-]+)", TEXT)) <= recipes
    for path in re.findall(r"`((?:deploy|docs)/[^`]+?)/?`", TEXT):
        assert (ROOT / path).exists(), path
