"""Airflow: the stream, for ever: the three legs side by side, each started again when it ends.

On a real broker (EGX_KAFKA__BOOTSTRAP_SERVERS) each leg is a task; on the embedded one, which lives inside one process, all
three are one task. The workers need the project's folder (PLATFORM_HOME, by default where this file lies) and its
environment (PLATFORM_PYTHON, by default .venv there). Settings come from config.yaml and the workers' environment. Each process
needs a metrics port of its own: from EGX_METRICS__PORT on, in the order ingest, live, archive.
"""

from __future__ import annotations

import os
import shlex
from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

HOME = Path(os.environ.get("PLATFORM_HOME") or Path(__file__).resolve().parents[2])
PYTHON = os.environ.get("PLATFORM_PYTHON") or str(HOME / ".venv" / "bin" / "python")
BROKER = os.environ.get("EGX_KAFKA__BOOTSTRAP_SERVERS") or "embedded"
PORT = os.environ.get("EGX_METRICS__PORT")

with DAG(
    "egx_streaming",
    description="Bars of the Egyptian Exchange: polled into Kafka, live into the store of dashboards, archived",
    schedule="@continuous",
    start_date=datetime(2025, 1, 1),  # noqa: DTZ001 - naive, so in UTC
    catchup=False,
    max_active_runs=1,
    # A leg ends with an error only where somebody has to mend something, or a store was away for retry_seconds.
    default_args={"retries": 10, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
    tags=["egx"],
):
    for number, leg in enumerate(("main",) if BROKER == "embedded" else ("ingest", "live", "archive")):
        # exec: Airflow's signal to end reaches the leg itself, which then ends cleanly.
        BashOperator(
            task_id=leg,
            bash_command=f"exec {shlex.quote(PYTHON)} -m bytewax.run dataflows.{leg}",
            cwd=str(HOME),
            env={"EGX_METRICS__PORT": str(int(PORT) + number)} if PORT else None,
            append_env=True,
        )
