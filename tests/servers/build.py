"""Fetches or builds the servers into the cache, each once a version.

The cache is `.cache/servers` of the project, or the folder named by EGX_SERVERS_CACHE. An artefact is a
folder `<name>-<version>` that appears by one rename when it is whole; a lock file a version makes two
builders wait for each other; each build's output is kept in `logs/`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

GO = "Go 1.24 or later (go)"
RUST = "Rust 1.72 or later (cargo, rustc)"
C_COMPILER = "a C compiler (gcc)"
JAVA = "a Java 17 or later runtime (java)"
MAVEN = "Apache Maven 3.8 or later (mvn)"


class BuildError(RuntimeError):
    """A server could not be fetched or built; the message has the build's last lines, and what to install."""


def cache_folder() -> Path:
    """The folder of built servers, build logs, running servers' data and their state file; made 0700."""
    named = os.environ.get("EGX_SERVERS_CACHE")
    folder = Path(named).absolute() if named else Path(__file__).parents[2] / ".cache" / "servers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path` (made if missing) among processes; waits for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Step:
    """Where one build works: `folder` becomes the artefact, `log` takes every command's output."""

    folder: Path
    log: IO[str]

    def run(self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        """Runs a command, its messages going to the log, and returns its standard output."""
        self.log.write(f"$ {' '.join(command)}\n")
        self.log.flush()
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            check=False,
        )
        self.log.write(done.stdout)
        self.log.flush()
        if done.returncode:
            raise BuildError(f"`{' '.join(command)}` ended with {done.returncode}")
        return done.stdout


@dataclass(frozen=True)
class Artefact:
    """One server's program: its name and version, what building it needs and how long that takes."""

    name: str
    version: str
    program: str
    """The path, inside the artefact's folder, of the executable or, for Java, of the jars."""
    needs: Mapping[str, str]
    """Commands that must be on PATH, each with what to install for it."""
    cold_minutes: float
    make: Callable[[Step, str], None]

    @property
    def folder(self) -> Path:
        return cache_folder() / f"{self.name}-{self.version}"

    @property
    def built(self) -> bool:
        return self.folder.is_dir()

    def get(self) -> Path:
        """Returns the path of the program, building it first if this version is missing.

        Raises BuildError when a tool is missing or a command failed.
        """
        if not self.built:
            with locked(cache_folder() / f"{self.name}-{self.version}.lock"):
                if not self.built:  # another process may have built it while this one waited
                    self._build()
        return self.folder / self.program

    def _build(self) -> None:
        missing = [what for command, what in self.needs.items() if shutil.which(command) is None]
        if missing:
            raise BuildError(f"{self.name} {self.version} cannot be built: install {', '.join(missing)}")
        logs = cache_folder() / "logs"
        logs.mkdir(exist_ok=True)
        log_path = logs / f"{self.name}-{self.version}.log"
        unfinished = self.folder.with_name(self.folder.name + ".unfinished")
        _remove(unfinished)
        unfinished.mkdir()
        print(
            f"{self.name} {self.version}: building, about {self.cold_minutes:g} min at first ({log_path})",
            file=sys.stderr,
            flush=True,
        )
        begun = time.monotonic()
        with log_path.open("w") as log:
            try:
                self.make(Step(unfinished, log), self.version)
            except BuildError as error:
                log.flush()
                last = "\n".join(log_path.read_text(errors="replace").splitlines()[-20:])
                raise BuildError(
                    f"{self.name} {self.version} could not be built: {error}.\n"
                    f"The last lines of {log_path}:\n{last}\n"
                    f"It needs {', '.join(self.needs.values())} and their package registries within reach."
                ) from None
        unfinished.rename(self.folder)
        print(
            f"{self.name} {self.version}: built in {time.monotonic() - begun:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def _remove(folder: Path) -> None:
    """Removes a folder in which the Go module cache's read-only folders may have been copied."""
    if folder.exists():
        for inner, _, _ in os.walk(folder):
            Path(inner).chmod(0o700)
        shutil.rmtree(folder)


_KAFKA_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
    </dependency>
    <!-- a log4j binding comes with the broker's distribution, not with its artefact -->
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version>
    </dependency>
  </dependencies>
</project>
"""


def _make_kafka(step: Step, version: str) -> None:
    pom = step.folder / "pom.xml"
    pom.write_text(_KAFKA_POM.format(version=version))
    step.run(
        "mvn",
        "--batch-mode",
        "--no-transfer-progress",
        "--strict-checksums",
        f"--file={pom}",
        "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={step.folder / 'libs'}",
    )


def _go_install(step: Step, package: str, program: str) -> None:
    step.run(
        "go",
        "install",
        "-trimpath",
        "-ldflags=-s -w",
        package,
        env={"GOBIN": str(step.folder), "GOWORK": "off"},
    )
    built = step.folder / Path(package.partition("@")[0]).name
    built.rename(step.folder / program)


def _make_versitygw(step: Step, version: str) -> None:
    _go_install(step, f"github.com/versity/versitygw/cmd/versitygw@v{version}", "versitygw")


def _make_toxiproxy(step: Step, version: str) -> None:
    _go_install(step, f"github.com/Shopify/toxiproxy/v2/cmd/server@v{version}", "toxiproxy")


def _make_influxd(step: Step, version: str) -> None:
    """Builds influxd from its Go module, and libflux, its part in Rust, for which `go build` calls cargo."""
    module = f"github.com/influxdata/influxdb/v2@v{version}"
    downloaded = json.loads(step.run("go", "mod", "download", "-json", module, env={"GOWORK": "off"}))["Dir"]
    work = step.folder / "work"
    source = work / "source"
    # `go install` refuses a module with replace directives: so the module's own tree is built, in a copy.
    shutil.copytree(downloaded, source)
    for inner, _, files in os.walk(source):
        Path(inner).chmod(0o700)
        for name in files:
            Path(inner, name).chmod(0o600)
    env = {"GOWORK": "off"}
    # influxdata's pkg-config reads go.mod with a parser that does not know the `toolchain` line.
    step.run("go", "mod", "edit", "-toolchain=none", cwd=source, env=env)
    pkg_config = work / "pkg-config"
    step.run(
        "go",
        "build",
        "-buildvcs=false",
        "-o",
        str(pkg_config),
        "github.com/influxdata/pkg-config",
        cwd=source,
    )
    # libflux denies warnings, and newer compilers warn of more: cap them in a wrapper, which unlike RUSTFLAGS
    # also reaches build scripts.
    wrapper = work / "rustc"
    wrapper.write_text('#!/bin/sh\nexec "$@" --cap-lints=allow\n')
    wrapper.chmod(0o700)
    env |= {"PKG_CONFIG": str(pkg_config), "RUSTC_WRAPPER": str(wrapper)}
    # Its rust-toolchain.toml pins an old compiler: naming the installed one keeps rustup from fetching that.
    if shutil.which("rustup") and "RUSTUP_TOOLCHAIN" not in os.environ:
        env["RUSTUP_TOOLCHAIN"] = step.run("rustup", "default").split()[0]
    step.run(
        "go",
        "build",
        "-buildvcs=false",
        "-trimpath",
        # Without the tag `assets` the web interface is left out; the HTTP API is whole.
        "-tags=sqlite_foreign_keys,sqlite_json",
        f"-ldflags=-s -w -X main.version=v{version}",
        f"-o={step.folder / 'influxd'}",
        "./cmd/influxd",
        cwd=source,
        env=env,
    )
    _remove(work)


ARTEFACTS = {
    artefact.name: artefact
    for artefact in (
        Artefact("kafka", "4.3.1", "libs", {"java": JAVA, "mvn": MAVEN}, 0.5, _make_kafka),
        Artefact(
            "influxdb",
            "2.8.0",
            "influxd",
            {"go": GO, "cargo": RUST, "rustc": RUST, "gcc": C_COMPILER},
            5,
            _make_influxd,
        ),
        Artefact("s3", "1.8.0", "versitygw", {"go": GO}, 1.5, _make_versitygw),
        Artefact("toxiproxy", "2.12.0", "toxiproxy", {"go": GO}, 0.5, _make_toxiproxy),
    )
}
"""Every server by the name that the command line, the fixtures and the state file use."""
