"""deploy/Dockerfile by its linter, and the units of systemd by systemd's own check, where these are there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci import in_ci
from tests.dataflows.jobs import ROOT
from tests.deploy.compose import env_file
from tests.servers.build import ARTEFACTS

DEPLOY = ROOT / "deploy"


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint") or str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stages_are_pinned_run_as_nobody_s_root_and_build_nothing() -> None:
    stages = re.split(r"(?m)^FROM ", (DEPLOY / "Dockerfile").read_text())[1:]
    for stage in stages:
        image = stage.split()[0]
        assert re.search(r":v?\d+\.\d+", image), image
    for stage in stages[-2:]:
        assert re.search(r"(?m)^USER 10001:10001$", stage)
        assert not re.search(r"apt-get|pip install|gcc|git", stage)


def test_the_image_gets_nothing_but_what_it_needs() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    copied = {
        name
        for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text())
        for name in line.split()
    }
    assert copied <= {line[1:] for line in lines if line.startswith("!")}


def test_the_image_has_what_the_tests_run() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"FROM versity/versitygw:v(\S+)", text) == [ARTEFACTS["s3"].version]
    (commit,) = re.findall(r"egxpy@(\w{40})\"", (ROOT / "justfile").read_text())
    assert re.findall(r"ARG EGXPY=(\w+)", text) == [commit]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None and not in_ci(), reason="no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").glob("*.[st]*"):
        text = unit.read_text().replace("/srv/egx/.venv/bin/python", sys.executable)
        (tmp_path / unit.name.replace("@", "@live")).write_text(text)
    names = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line], done.stderr


def test_all_that_a_unit_writes_lies_in_its_state_directory() -> None:
    home = Path("/var/lib/egx")
    ours = env_file(DEPLOY / "systemd" / "egx.env", {})
    code = (
        "from dataflows.gold import gold_folder; from dataflows.settings import load; s = load();"
        "print(s.path(s.ingest.state), s.path(s.live.sqlite), s.path(s.archive.url), s.path(s.metrics.folder), gold_folder())"
        ";print(s.source.kind, s.source.follows)"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("EGX_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**inherited, **ours}, capture_output=True, text=True, check=True
    )
    paths, source = done.stdout.splitlines()
    assert all(Path(path).is_relative_to(home) for path in paths.split()), paths
    assert source == "egxpy True"
    for name in ("egx@.service", "egx-warehouse.service"):
        unit = (DEPLOY / "systemd" / name).read_text()
        files = re.findall(r"(?m)^EnvironmentFile=(.+)$", unit)
        assert files[:2] == ["/srv/egx/deploy/systemd/egx.env", "/etc/egx/env"]
        assert files[2:] == (["-/etc/egx/%i.env"] if "@" in name else []), "what a leg has for itself wins, and need not be there"
        assert re.search(r"(?m)^StateDirectory=egx$", unit)


def test_the_recipe_for_compose_s_services_gives_the_tests_no_setting_of_compose(tmp_path: Path) -> None:
    """The names of .env are compose.yaml's: EGX_PROFILE and EGX_SOURCE would be refused as settings of ours."""
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    shutil.copy(ROOT / "justfile", tmp_path)
    for name, text in (("docker", "#!/bin/sh\n"), (".venv/bin/python", '#!/bin/sh\n[ "$1" = -m ] && env > environment\n')):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    (tmp_path / "requirements.lock").touch()
    os.utime(tmp_path / "requirements.lock", (0, 0))
    (tmp_path / ".venv/locked").touch()
    inherited = {key: value for key, value in os.environ.items() if not re.match("EGX_|VENV|PYTHON", key)}
    environment = {**inherited, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    just = shutil.which("just") or str(ROOT / ".cache/ci/bin/just")
    subprocess.run([just, "test-compose"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    given = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert {"EGX_TEST_KAFKA", "EGX_TEST_S3_ENDPOINT", "AWS_SECRET_ACCESS_KEY"} <= given
    assert not {name for name in given if name.startswith("EGX_") and not name.startswith("EGX_TEST_")}


def test_a_unit_runs_what_compose_runs() -> None:
    legs = (DEPLOY / "systemd" / "egx@.service").read_text()
    warehouse = (DEPLOY / "systemd" / "egx-warehouse.service").read_text()
    assert "ExecStart=/srv/egx/.venv/bin/python -m bytewax.run dataflows.%i\n" in legs
    assert "ExecStart=/srv/egx/.venv/bin/python -m warehouse.schedule --once\n" in warehouse
    for unit in (legs, warehouse):
        assert "User=egx" in unit
        assert "NoNewPrivileges=yes" in unit
