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
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from dataflows.bar import Interval

EMBEDDED = "embedded"
PREFIX = "EGX_"
NOT_SETTINGS = re.compile(
    r"EGX_(CONFIG|DATA_DIR|WAREHOUSE\w*|START|CRON|INVESTING_DATES|STATE_POSTGRES|HYPOTHESIS_PROFILE|TEST_\w+|SERVERS_\w+)"
)  # read elsewhere
_SECRET = re.compile(r"password|secret|token|jaas|\.pem$|oauthbearer\.config", re.IGNORECASE)
SYMBOLS = tuple("COMI ETEL SWDY PHDC ORAS ESRS HRHO OCDI SKPC TMGH JUFO EKHO CLHO OTMT BTFH HELI".split())  # noqa: SIM905
ROOT = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """A setting is missing, unknown or wrong; the message says which, and what to do."""


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9._]{1,20}", value):
        raise ValueError("1 to 20 capital letters, digits, dots and underscores")
    return value


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("an address without user and password: secrets have settings of their own")
    return value


def _socket_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError("a ws:// or wss:// address")
    return value


def _archive_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if (separator and (scheme != "s3" or not rest.strip("/"))) or re.match("[a-z0-9]+:(?!//)", value):
        raise ValueError("a folder, or s3://bucket/prefix/")
    return value


Name = Annotated[str, AfterValidator(_name)]
Speed = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Simulated(Section):
    seed: int = 2025
    speed: Speed = 600
    date: dt.date | None = None
    minutes: PositiveInt | None = None
    history_sessions: Annotated[int, Field(ge=0)] = 260


class Replay(Section):
    path: Path | None = None
    interval: Interval | None = None
    speed: Speed = 0


class Egxpy(Section):
    username: str | None = None
    password: SecretStr | None = None
    always: bool = False
    before_open_minutes: Annotated[float, Field(ge=0, le=240)] = 10
    after_close_minutes: Annotated[float, Field(ge=0, le=240)] = 25
    delay_minutes: Annotated[float, Field(ge=0, le=240)] = 15
    parallel: Annotated[int, Field(ge=1, le=64)] = 8
    timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 10
    deadline_seconds: Annotated[float, Field(ge=1, le=600)] = 20
    data_url: Annotated[str, AfterValidator(_socket_url)] | None = None
    sign_in_url: Annotated[str, AfterValidator(_web_url)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.after_close_minutes <= self.delay_minutes:
            raise ValueError(
                "such that after_close_minutes is above delay_minutes: the poll after the close would not see the close"
            )
        if self.deadline_seconds < self.timeout_seconds:
            raise ValueError("such that deadline_seconds, for all attempts, is not below timeout_seconds, for one")
        if (self.username is None) != (self.password is None):
            raise ValueError("given both, EGX_SOURCE__EGXPY__USERNAME and EGX_SOURCE__EGXPY__PASSWORD, or neither")
        return self


class Source(Section):
    kind: Literal["simulated", "replay", "egxpy"] = "simulated"
    exchange: Name = "EGX"
    symbols: Annotated[tuple[Name, ...], Field(min_length=1)] = SYMBOLS
    interval: Interval = "Daily"
    bars: Annotated[int, Field(ge=1, le=5000)] = 30
    poll_seconds: PositiveFloat = 300
    follow: bool | None = None
    simulated: Simulated = Simulated()
    replay: Replay = Replay()
    egxpy: Egxpy = Egxpy()

    @property
    def follows(self) -> bool:
        """Whether to wait for more at the source's end: `follow`, or else only what is live."""
        return self.kind == "egxpy" if self.follow is None else self.follow


class Kafka(Section):
    bootstrap_servers: str = EMBEDDED
    topic: str = "egx_market_data"
    dead_letter_topic: str = "egx_market_data.dead_letter"
    partitions: PositiveInt = 4
    retain_days: PositiveFloat = 7
    replication_factor: int = -1
    username: str | None = None
    password: SecretStr | None = None
    client: dict[str, Any] = {}
    readers: PositiveInt = 1
    batch_messages: PositiveInt = 10_000


class Ingest(Section):
    state: Path = Path("data/ingest.sqlite")


class Live(Section):
    store: Literal["sqlite", "influxdb"] = "sqlite"
    sqlite: Path = Path("data/live.sqlite")
    group: str = "egx-influxdb-writer"


class InfluxDB(Section):
    url: Annotated[str, AfterValidator(_web_url)] = "http://127.0.0.1:8086"
    org: str = "egx"
    bucket: str = "market_data"
    token: SecretStr | None = None
    retain_days: PositiveFloat = 30
    batch_points: PositiveInt = 5000
    timeout_seconds: PositiveFloat = 10
    ca_file: Path | None = None


class S3(Section):
    endpoint_url: Annotated[str, AfterValidator(_web_url)] | None = None
    region: str | None = None
    storage_class: str | None = None
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None


class Archive(Section):
    url: Annotated[str, AfterValidator(_archive_url)] = "data/archive/streaming/"
    group: str = "egx-s3-writer"
    block_messages: PositiveInt = 65536
    parallel: Annotated[int, Field(ge=1, le=256)] = 16
    s3: S3 = S3()


class Metrics(Section):
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    host: str = "127.0.0.1"
    influxdb: bool = False
    folder: Path = Path("data/status")
    seconds: PositiveFloat = 5


class Settings(BaseSettings):
    """Everything that can be chosen; `load` reads it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )
    file: ClassVar[Path]

    source: Source = Source()
    kafka: Kafka = Kafka()
    ingest: Ingest = Ingest()
    live: Live = Live()
    influxdb: InfluxDB = InfluxDB()
    archive: Archive = Archive()
    metrics: Metrics = Metrics()
    logs: Literal["text", "json"] = "text"
    retry_seconds: PositiveFloat = 300
    progress_seconds: Annotated[float, Field(ge=0)] = 5

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        *sources: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return named["init_settings"], named["env_settings"], _File(settings_cls)

    def path(self, path: Path | str) -> Path:
        """A path of the settings, relative ones from the folder of config.yaml."""
        return self.file.parent / Path(path).expanduser()


class _File(InitSettingsSource):
    """config.yaml, with keys that were left empty taken as not given, and secrets refused."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, _given(self._read()))

    def _read(self) -> dict[str, Any]:
        if not Settings.file.is_file():
            return {}
        try:
            values = yaml.safe_load(Settings.file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError) as error:
            raise SettingsError(f"{Settings.file} is not YAML: {' '.join(str(error).split())}") from None
        except OSError as error:
            raise SettingsError(f"cannot read {Settings.file}: {error.strerror}") from None
        if values is None:
            return {}
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise SettingsError(f"{Settings.file} must hold sections, such as source: and kafka:")
        for key, _ in _leaves(values):
            if _SECRET.search(key):
                name = PREFIX + key.replace(".", "__").upper()
                if key.startswith("kafka.client."):
                    name = "EGX_KAFKA__PASSWORD (sasl.password) or EGX_KAFKA__CLIENT (any, as JSON)"
                raise SettingsError(f"{Settings.file}: {key} is a secret: remove it there and set the environment's {name}")
        return values


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _given(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


@cache
def load(**overrides: Any) -> Settings:
    """The settings in effect: the environment over config.yaml over the defaults.

    The file is `$EGX_CONFIG`, or config.yaml in the working folder, or else the project's. Raises SettingsError.
    """
    chosen = os.environ.get("EGX_CONFIG")
    candidates = [Path(chosen)] if chosen else [Path("config.yaml"), ROOT / "config.yaml"]
    Settings.file = next((p.resolve() for p in candidates if p.is_file()), candidates[-1].resolve())
    if chosen and not Settings.file.is_file():
        raise SettingsError(f"there is no file {chosen}: EGX_CONFIG must name one")
    _check_environment(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(e) for e in error.errors())) from None
    except SourceError as error:
        raise SettingsError(f'{error}: lists and objects are given as JSON, such as ["COMI"]') from None


def _check_environment(environment: Mapping[str, str]) -> None:
    """Refuses a name that pydantic-settings would pass over in silence."""
    for name in environment:
        if name.startswith(PREFIX) and not NOT_SETTINGS.fullmatch(name):
            section = name.removeprefix(PREFIX).split("__")[0].lower()
            if section not in Settings.model_fields:
                known = [f"{PREFIX}{'__'.join(path)}".upper() for path in _paths(Settings)]
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
                raise SettingsError(
                    f"the environment's {name} is no setting{f'; did you mean {near[0]}?' if near else ''}"
                    f" (sections: {', '.join(Settings.model_fields)})"
                )


def _paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *rest) for rest in _paths(field.annotation))
        else:
            yield (name,)


def _explain(error: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        model: type[BaseModel] = Settings
        for part in path[:-1]:
            model = model.model_fields[part].annotation  # type: ignore[assignment]  # every step to it is a Section
        of = ".".join(path[:-1])
        return f"unknown setting {'.'.join(path)}; {of + ' has' if of else 'there are'} {', '.join(model.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        message = f"must be {message}"
    given = error.get("input")
    # What may hold a secret is not repeated: an address its password, a client's properties any.
    quiet = (
        isinstance(given, dict | list | BaseModel)
        or _SECRET.search(path[-1])
        or re.search(r"influxdb\.url|endpoint_url|kafka\.client", ".".join(path))
    )
    value = "" if quiet else f" {given!r}:"
    return f"setting {'.'.join(path)}:{value} {message[:1].lower()}{message[1:]}"


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, secrets as asterisks."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    client = values["kafka"]["client"]
    values["kafka"]["client"] = {k: "**********" if _SECRET.search(k) else v for k, v in client.items()}
    return values


if __name__ == "__main__":
    try:
        print(f"# {load().file}")
        print(yaml.safe_dump(masked(load()), sort_keys=False, width=120, default_flow_style=False), end="")
    except SettingsError as error:
        sys.exit(f"egx: {error}")
