"""compose.yaml as `docker compose` reads it: variables filled in, env files merged into each service's environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:[-?+])((?:[^{}]|\{[^{}]*\})*))?\}")


class Missing(Exception):
    """A variable that must be set is not; the text is what compose.yaml says then."""


def filled(text: str, variables: Mapping[str, str]) -> str:
    """The text with its `${NAME}` filled in, with `:-default`, `:+instead` or `:?message`; an empty value counts as none."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if name is None:
            return "$"
        if operator == ":?" and not variables.get(name):
            raise Missing(rest)
        if operator == ":+":
            return rest if variables.get(name) else ""
        return variables.get(name) or (rest if operator == ":-" else "")

    return _VARIABLE.sub(value, text)


def variables_of(text: str) -> set[str]:
    """The names of the variables in a text."""
    return {name for name, _, _ in _VARIABLE.findall(text) if name}


def env_file(path: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The values of a file of NAME=value lines."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: filled(value, variables) for name, _, value in (line.partition("=") for line in lines)}


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The whole file, without the services of profiles that COMPOSE_PROFILES does not name."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return filled(value, variables)
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    project: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    chosen = set(filled(variables.get("COMPOSE_PROFILES", ""), variables).split(","))
    services = {
        name: service
        for name, service in project["services"].items()
        if not service.get("profiles") or chosen & set(service["profiles"])
    }
    return walk({**project, "services": services})  # type: ignore[no-any-return]  # a dict in, a dict out


def environment(service: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a loaded service's process: its env files below its own values."""
    found: dict[str, str] = {}
    for path in service.get("env_file", []):
        found |= env_file(ROOT / path, variables)
    return found | {name: str(value) for name, value in service.get("environment", {}).items()}
