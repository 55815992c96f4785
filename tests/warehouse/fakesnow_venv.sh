#!/usr/bin/env bash
# fakesnow in a virtual environment of its own: its sqlglot and duckdb clash with SQLMesh's.
# Prints the environment's Python. Made once, then taken from .cache/.
set -euo pipefail
folder="${EGX_FAKESNOW_VENV:-$(cd "$(dirname "$0")/../.." && pwd)/.cache/fakesnow-0.12.1}"
if [ ! -e "$folder/ready" ]; then
  if command -v uv >/dev/null; then
    uv venv --quiet --clear --python "${PYTHON:-python3}" "$folder" >&2
    install=(uv pip install --quiet --python "$folder/bin/python")
  else
    "${PYTHON:-python3}" -m venv --clear "$folder" >&2
    install=("$folder/bin/python" -m pip install --quiet)
  fi
  "${install[@]}" 'fakesnow[server]==0.12.1' 'snowflake-connector-python>=4.8,<5' 'duckdb==2.0.1' 'sqlglot==30.22.0' 'trustme>=1.2' >&2
  touch "$folder/ready"
fi
echo "$folder/bin/python"
