#!/usr/bin/env bash
# dbt-duckdb in a virtual environment of its own, with the DuckDB that SQLMesh runs on. Prints the environment's bin folder.
# dbt-core 1.12 needs a parser that its build downloads; 1.11 does not.
set -euo pipefail
duckdb="$1"
folder="${EGX_DBT_VENV:-$(cd "$(dirname "$0")/../.." && pwd)/.cache/dbt-duckdb}"
if [ ! -e "$folder/ready" ]; then
  if command -v uv >/dev/null; then
    uv venv --quiet --clear --python "${PYTHON:-python3}" "$folder" >&2
    install=(uv pip install --quiet --compile-bytecode --python "$folder/bin/python")
  else
    "${PYTHON:-python3}" -m venv --clear "$folder" >&2
    install=("$folder/bin/python" -m pip install --quiet)
  fi
  "${install[@]}" 'dbt-core<1.12' 'dbt-duckdb>=1.9' "duckdb==$duckdb" pandas pyarrow >&2
  touch "$folder/ready"
fi
echo "$folder/bin"
