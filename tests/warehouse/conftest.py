"""A SQLMesh project over a small archive: the real one of warehouse/, its files in a temporary folder."""

import datetime as dt
import os
import typing as t
import warnings
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
Rows = list[tuple[t.Any, ...]]


class Warehouse:
    """The project with an archive of its own; `open` starts anew on the same files, as a new process would."""

    def __init__(self, archive: Path, folder: Path, gateway: str | None = None) -> None:
        self.archive = archive
        self.folder = folder
        self.gateway = gateway
        self.context: t.Any = None

    def open(self) -> "Warehouse":
        from sqlmesh import Context

        self.close()
        os.environ["EGX_WAREHOUSE_ARCHIVE"] = str(self.archive)
        os.environ["EGX_WAREHOUSE"] = str(self.folder)
        self.context = Context(paths=str(PROJECT / "warehouse"), gateway=self.gateway)
        return self

    def plan(self, **options: t.Any) -> None:
        self.context.plan(auto_apply=True, no_prompts=True, skip_tests=True, **options)

    def run(self, at: dt.datetime | None = None, models: t.Iterable[str] | None = None) -> bool:
        """Everything up to a time, today's part included; with models, only these and what they read."""
        from sqlmesh.utils import CompletionStatus

        status = self.context.run(ignore_cron=True, execution_time=at, select_models=models)
        return status is not CompletionStatus.FAILURE

    def rows(self, sql: str) -> Rows:
        return list(self.context.engine_adapter.fetchall(sql))

    def table(self, name: str, but: t.Iterable[str] = ()) -> Rows:
        """All rows of a table, sorted, without the columns named."""
        exclude = f" EXCLUDE ({', '.join(but)})" if but else ""
        return sorted(self.rows(f"SELECT *{exclude} FROM {name}"), key=repr)

    def close(self) -> None:
        if self.context is not None:
            self.context.close()
            self.context = None


@pytest.fixture(autouse=True)
def _quiet() -> t.Iterator[None]:
    kept = {name: os.environ.get(name) for name in ("EGX_WAREHOUSE_ARCHIVE", "EGX_WAREHOUSE", "EGX_START")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for name, value in kept.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def make_warehouse(tmp_path: Path) -> t.Iterator[t.Callable[..., Warehouse]]:
    """Warehouses by name over one archive: make_warehouse() and make_warehouse("rebuilt") read the same objects."""
    made: list[Warehouse] = []
    archive = tmp_path / "archive"
    archive.mkdir()

    def make(name: str = "warehouse", archive: Path = archive, gateway: str | None = None) -> Warehouse:
        made.append(Warehouse(archive, tmp_path / name, gateway))
        return made[-1].open()

    yield make
    for warehouse in made:
        warehouse.close()
