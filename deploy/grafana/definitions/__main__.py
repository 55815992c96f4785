"""Writes the dashboards and alerts: `just dashboards` after a change here; a test sees that the files are as this makes them."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.definitions.alerts import alerts
from deploy.grafana.definitions.history import history
from deploy.grafana.definitions.live import live
from deploy.grafana.definitions.panels import GOLD, SNOWFLAKE
from deploy.grafana.definitions.pipeline import pipeline

HERE = Path(__file__).resolve().parents[1]


def files() -> dict[Path, str]:
    """Every file that is made, and its text."""
    made = {
        "dashboards/egx-live.json": live(),
        "dashboards/egx-pipeline.json": pipeline(),
        "dashboards/egx-history.json": history(GOLD),
        "dashboards/egx-history-snowflake.json": history(SNOWFLAKE),
        "provisioning/alerting/egx.json": alerts(),
    }
    return {HERE / name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(HERE))
