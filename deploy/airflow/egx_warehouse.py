"""Airflow: the warehouse, at 02:00 Cairo time every night.

The workers need what deploy/airflow/egx_streaming.py says. WAREHOUSE_GATEWAY=snowflake runs it in Snowflake.
"""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

HOME = Path(os.environ.get("PLATFORM_HOME") or Path(__file__).resolve().parents[2])
PYTHON = os.environ.get("PLATFORM_PYTHON") or str(HOME / ".venv" / "bin" / "python")

with DAG(
    "egx_warehouse",
    description="Bronze, silver and gold of the Egyptian Exchange's bars",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2025, 1, 1, tz="Africa/Cairo"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10), "execution_timeout": timedelta(hours=2)},
    tags=["egx"],
):
    run = BashOperator(
        task_id="run",
        bash_command=f"exec {shlex.quote(PYTHON)} -m warehouse.schedule --once --tries 1",
        cwd=str(HOME),
        append_env=True,
    )
    snapshot = BashOperator(
        task_id="snapshot",
        bash_command=f"exec {shlex.quote(PYTHON)} -m warehouse.snapshot",
        cwd=str(HOME),
        append_env=True,
    )
    run >> snapshot
