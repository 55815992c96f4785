"""Settings: config.yaml for choices, the environment (`EGX_<SECTION>__<KEY>`) for overrides and secrets.

`python -m dataflows.settings` prints what is in effect, secrets masked.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import msgspec
from msgspec import Meta
from msgspec.inspect import DictType, VarTupleType, type_info

from dataflows.bar import Interval

EMBEDDED = "embedded"
PREFIX = "EGX_"
NOT_SETTINGS = re.compile(
    r"EGX_(CONFIG|DATA_DIR|WAREHOUSE\w*|START|CRON|INVESTING_DATES|STATE_POSTGRES|HYPOTHESIS_PROFILE|TEST_\w+|SERVERS_\w+)"
)  # read elsewhere
_SECRET = re.compile(r"password|secret|token|jaas|\.pem$|oauthbearer\.config", re.IGNORECASE)
SYMBOLS = tuple("COMI ETEL SWDY PHDC ORAS ESRS HRHO OCDI SKPC TMGH JUFO EKHO CLHO OTMT BTFH HELI".split())  # noqa: SIM905
ROOT = Path(__file__).resolve().parent.parent
MASK = "**********"
_WORDS = {  # msgspec's terms, and what a reader of config.yaml calls them
    "Expected": "must be",
    "Invalid RFC3339 encoded date": "must be a date, YYYY-MM-DD",
    " | null": "",
    "`int`": "an integer",
    "`float`": "a number",
    "`bool`": "true or false",
    "`str`": "text",
    "`date`": "a date, YYYY-MM-DD",
    "`array`": "a list",
    "`object`": "names with values",
}


class SettingsError(Exception):
    """A setting is missing, unknown or wrong; the message says which, and what to do."""


class Secret:
    """A text that is shown to nobody who does not ask for it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return MASK


_HOST = r"://(\[[^\s\]]+\]|[^\s/?#@:\[\]]+)(:\d+)?([/?#]|\Z)"
_NAME = r"^[A-Z0-9._]{1,20}\Z"
_WEB_URL = "^(?i:https?)" + _HOST
_SOCKET_URL = "^(?i:wss?)" + _HOST
_ARCHIVE_URL = r"^s3://.*[^/]|^(?!.*://|[a-z0-9]+:)"
_PATTERNS = {
    _NAME: "1 to 20 capital letters, digits, dots and underscores",
    _WEB_URL: "an http:// or https:// address without user and password: secrets have settings of their own",
    _SOCKET_URL: "a ws:// or wss:// address without user and password",
    _ARCHIVE_URL: "a folder, or s3://bucket/prefix/",
}

Name = Annotated[str, Meta(pattern=_NAME)]
WebUrl = Annotated[str, Meta(pattern=_WEB_URL)]
SocketUrl = Annotated[str, Meta(pattern=_SOCKET_URL)]
ArchiveUrl = Annotated[str, Meta(pattern=_ARCHIVE_URL)]
Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Minutes = Annotated[float, Meta(ge=0, le=240)]
Speed = Annotated[float, Meta(ge=0, le=1_000_000)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings that belong together."""


class Simulated(Section, frozen=True):
    seed: int = 2025
    speed: Speed = 600
    date: dt.date | None = None
    minutes: Count | None = None
    history_sessions: Annotated[int, Meta(ge=0)] = 260


class Replay(Section, frozen=True):
    path: Path | None = None
    interval: Interval | None = None
    speed: Speed = 0


class Egxpy(Section, frozen=True):
    username: str | None = None
    password: Secret | None = None
    always: bool = False
    before_open_minutes: Minutes = 10
    after_close_minutes: Minutes = 25
    delay_minutes: Minutes = 15
    parallel: Annotated[int, Meta(ge=1, le=64)] = 8
    timeout_seconds: Annotated[float, Meta(ge=1, le=300)] = 10
    deadline_seconds: Annotated[float, Meta(ge=1, le=600)] = 20
    data_url: SocketUrl | None = None
    sign_in_url: WebUrl | None = None

    def __post_init__(self) -> None:
        if self.after_close_minutes <= self.delay_minutes:
            raise ValueError(
                "such that after_close_minutes is above delay_minutes: the poll after the close would not see the close"
            )
        if self.deadline_seconds < self.timeout_seconds:
            raise ValueError("such that deadline_seconds, for all attempts, is not below timeout_seconds, for one")
        if (self.username is None) != (self.password is None):
            raise ValueError("given both, EGX_SOURCE__EGXPY__USERNAME and EGX_SOURCE__EGXPY__PASSWORD, or neither")


class Source(Section, frozen=True):
    kind: Literal["simulated", "replay", "egxpy"] = "simulated"
    exchange: Name = "EGX"
    symbols: Annotated[tuple[Name, ...], Meta(min_length=1)] = SYMBOLS
    interval: Interval = "Daily"
    bars: Annotated[int, Meta(ge=1, le=5000)] = 30
    poll_seconds: Positive = 300
    follow: bool | None = None
    simulated: Simulated = Simulated()
    replay: Replay = Replay()
    egxpy: Egxpy = Egxpy()

    @property
    def follows(self) -> bool:
        """Whether to wait for more at the source's end: `follow`, or else only what is live."""
        return self.kind == "egxpy" if self.follow is None else self.follow


class Kafka(Section, frozen=True):
    bootstrap_servers: str = EMBEDDED
    topic: str = "egx_market_data"
    dead_letter_topic: str = "egx_market_data.dead_letter"
    partitions: Count = 4
    retain_days: Positive = 7
    replication_factor: int = -1
    username: str | None = None
    password: Secret | None = None
    client: dict[str, Any] = {}
    readers: Count = 1
    batch_messages: Count = 10_000


class Ingest(Section, frozen=True):
    state: Path = Path("data/ingest.sqlite")


class Live(Section, frozen=True):
    store: Literal["sqlite", "influxdb"] = "sqlite"
    sqlite: Path = Path("data/live.sqlite")
    group: str = "egx-influxdb-writer"


class InfluxDB(Section, frozen=True):
    url: WebUrl = "http://127.0.0.1:8086"
    org: str = "egx"
    bucket: str = "market_data"
    token: Secret | None = None
    retain_days: Positive = 30
    batch_points: Count = 5000
    timeout_seconds: Positive = 10
    ca_file: Path | None = None


class S3(Section, frozen=True):
    endpoint_url: WebUrl | None = None
    region: str | None = None
    storage_class: str | None = None
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None


class Archive(Section, frozen=True):
    url: ArchiveUrl = "data/archive/streaming/"
    group: str = "egx-s3-writer"
    block_messages: Count = 262144
    parallel: Annotated[int, Meta(ge=1, le=256)] = 16
    s3: S3 = S3()


class Metrics(Section, frozen=True):
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    host: str = "127.0.0.1"
    influxdb: bool = False
    folder: Path = Path("data/status")
    seconds: Positive = 5


class Settings(Section, frozen=True):
    """Everything that can be chosen; `load` reads it."""

    file: ClassVar[Path]

    source: Source = Source()
    kafka: Kafka = Kafka()
    ingest: Ingest = Ingest()
    live: Live = Live()
    influxdb: InfluxDB = InfluxDB()
    archive: Archive = Archive()
    metrics: Metrics = Metrics()
    logs: Literal["text", "json"] = "text"
    retry_seconds: Positive = 300
    progress_seconds: Annotated[float, Meta(ge=0)] = 5

    def path(self, path: Path | str) -> Path:
        """A path of the settings, relative ones from the folder of config.yaml."""
        return self.file.parent / Path(path).expanduser()


@cache
def load() -> Settings:
    """The settings in effect: the environment over config.yaml over the defaults.

    The file is `$EGX_CONFIG`, or config.yaml in the working folder, or else the project's. Raises SettingsError.
    """
    chosen = os.environ.get("EGX_CONFIG")
    candidates = [Path(chosen)] if chosen else [Path("config.yaml"), ROOT / "config.yaml"]
    Settings.file = next((p.resolve() for p in candidates if p.is_file()), candidates[-1].resolve())
    if chosen and not Settings.file.is_file():
        raise SettingsError(f"there is no file {chosen}: EGX_CONFIG must name one")
    values = _merged(_of_file(), _of_environment())
    try:
        settings: Settings = _convert(values, Settings)
    except msgspec.ValidationError:
        raise SettingsError("; ".join(_mistakes(values, Settings))) from None
    return settings


def _of_file() -> dict[str, Any]:
    """What config.yaml gives: keys that were left empty are taken as not given, and secrets refused."""
    if not Settings.file.is_file():
        return {}
    try:
        values = msgspec.yaml.decode(Settings.file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{Settings.file} is not YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise SettingsError(f"cannot read {Settings.file}: {error.strerror}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"{Settings.file} must hold sections, such as source: and kafka:")
    values = _given(values)
    for key in _leaves(values):
        if _SECRET.search(key):
            name = PREFIX + key.replace(".", "__").upper()
            if key.startswith("kafka.client."):
                name = "EGX_KAFKA__PASSWORD (sasl.password) or EGX_KAFKA__CLIENT (any, as JSON)"
            raise SettingsError(f"{Settings.file}: {key} is a secret: remove it there and set the environment's {name}")
    return values


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _given(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _of_environment() -> dict[str, Any]:
    """What the environment's `EGX_<SECTION>__<KEY>` give; those that are empty are taken as not given."""
    found: dict[str, Any] = {}
    for name in sorted(os.environ):  # a section as JSON comes before its own settings
        if not name.upper().startswith(PREFIX) or NOT_SETTINGS.fullmatch(name.upper()):
            continue
        path = name.lower().removeprefix(PREFIX.lower()).split("__")
        if path[0] not in _kinds(Settings):
            raise SettingsError(_no_setting(name))
        text = os.environ[name]
        if text:
            value: Any = _json(name, text) if _takes_json(path) else text
            for key in reversed(path):
                value = {key: value}
            found = _merged(found, value)
    return found


def _no_setting(name: str) -> str:
    known = [f"{PREFIX}{'__'.join(path)}".upper() for path in _paths(Settings)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return (
        f"the environment's {name} is no setting{f'; did you mean {near[0]}?' if near else ''}"
        f" (sections: {', '.join(_kinds(Settings))})"
    )


def _json(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except ValueError:
        raise SettingsError(f'the environment\'s {name} must be JSON, as lists and objects are: such as ["COMI"]') from None


def _takes_json(path: list[str]) -> bool:
    kind: Any = Settings
    for key in path:
        kind = _kinds(kind).get(key) if _is_section(kind) else None
    return _is_section(kind) or isinstance(type_info(kind), DictType | VarTupleType)


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _kinds(section: type[Section]) -> dict[str, Any]:
    """The types of a section's settings, by name."""
    return {field.name: field.type for field in msgspec.structs.fields(section)}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _paths(section: type[Section]) -> Iterator[tuple[str, ...]]:
    for name, kind in _kinds(section).items():
        if _is_section(kind):
            yield from ((name, *rest) for rest in _paths(kind))
        else:
            yield (name,)


def _convert(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, strict=False, dec_hook=_of_text)


def _of_text(kind: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return kind(value)


def _mistakes(values: Mapping[str, Any], section: type[Section], path: str = "") -> list[str]:
    """What is wrong with a section, each mistake: msgspec itself stops at the first."""
    found = []
    kinds = _kinds(section)
    for name, value in values.items():
        at = f"{path}{name}"
        kind = kinds.get(name)
        if kind is None:
            there = f"{path.removesuffix('.')} has" if path else "there are"
            found.append(f"unknown setting {at}; {there} {', '.join(kinds)}")
        elif _is_section(kind) and isinstance(value, Mapping):
            found += _mistakes(value, kind, f"{at}.")
        else:
            try:
                _convert(value, kind)
            except msgspec.ValidationError as error:
                found.append(_explain(at, kind, value, str(error)))
    if not found:
        try:
            _convert(values, section)
        except msgspec.ValidationError as error:
            found.append(f"setting {path.removesuffix('.')}: must be {error}")
    return found


def _explain(path: str, kind: Any, value: Any, error: str) -> str:
    """A mistake in words. :arg error: msgspec's, such as "Expected `int`, got `str` - at `$[0]`"."""
    expected, _, place = error.partition(" - at ")
    if element := re.fullmatch(r"`\$\[(\d+)]`", place):
        path, value = f"{path}.{element[1]}", value[int(element[1])]
    choices = [repr(choice) for part in (kind, *get_args(kind)) if get_origin(part) is Literal for choice in get_args(part)]
    pattern = next((pattern for pattern in _PATTERNS if repr(pattern) in expected), None)
    if choices:
        expected = f"must be {', '.join(choices[:-1])} or {choices[-1]}"
    elif pattern:
        expected = f"must be {_PATTERNS[pattern]}"
    else:
        expected = expected.partition(", got ")[0]
        for term, words in _WORDS.items():
            expected = expected.replace(term, words)
    # What may hold a secret is not repeated: an address its password, a client's properties any.
    quiet = (
        _is_section(kind)
        or isinstance(value, dict | list)
        or _SECRET.search(path.rpartition(".")[2])
        or re.search(r"influxdb\.url|_url$|kafka\.client", path)
    )
    return f"setting {path}:{'' if quiet else f' {value!r}:'} {expected}"


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, secrets as asterisks."""
    values: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    client = values["kafka"]["client"]
    values["kafka"]["client"] = {k: MASK if _SECRET.search(k) else v for k, v in client.items()}
    return values


if __name__ == "__main__":
    try:
        print(f"# {load().file}")
        print(msgspec.yaml.encode(masked(load())).decode(), end="")
    except SettingsError as error:
        sys.exit(f"egx: {error}")
