"""deploy/Dockerfile by its linter, and the units of systemd by systemd's own check, where these are there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dataflows.jobs import ROOT

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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text().replace("/srv/egx/.venv/bin/python", sys.executable)
        (tmp_path / unit.name.replace("@", "@live")).write_text(text)
    names = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line], done.stderr


def test_a_unit_runs_what_compose_runs() -> None:
    legs = (DEPLOY / "systemd" / "egx@.service").read_text()
    warehouse = (DEPLOY / "systemd" / "egx-warehouse.service").read_text()
    assert "ExecStart=/srv/egx/.venv/bin/python -m bytewax.run dataflows.%i\n" in legs
    assert "ExecStart=/srv/egx/.venv/bin/python -m warehouse.schedule --once\n" in warehouse
    for unit in (legs, warehouse):
        assert "User=egx" in unit
        assert "NoNewPrivileges=yes" in unit
