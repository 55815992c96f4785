# Run `just` for the whole gate, `just --list` for everything. Needs only uv and just: `pip install uv rust-just`.

python := env("PYTHON", "3.11")
venv := env("VENV", ".venv")
py := venv / "bin/python"
airflow := env("AIRFLOW_VENV", ".cache/airflow")

export UV_PYTHON_PREFERENCE := env("UV_PYTHON_PREFERENCE", "system")

# The gate: format, lint, types, tests
default: format-check lint types test

# Make the virtual environment and install what requirements.lock says
setup:
    @test -x {{py}} || uv venv --quiet --python {{python}} {{venv}}
    @test {{venv}}/locked -nt requirements.lock || (uv pip install --quiet --compile-bytecode --python {{py}} --require-hashes -r requirements.lock && touch {{venv}}/locked)

# A simulated session through the whole platform, the warehouse's plan applied, then what it made
demo: setup
    @echo "See it move: 'just page' in another terminal, then http://127.0.0.1:8501"
    {{py}} -m bytewax.run dataflows.main
    {{py}} -m dataflows.summary
    {{py}} -m warehouse.run
    {{py}} -m warehouse.snapshot
    @echo
    @echo "Look at it: 'just page', then the address that it prints. Run it again: nothing is published twice. Next: docs/ and config.yaml; 'just clean' removes data/ to start over."

# Show what a change of the warehouse would do, and apply it if you say so
plan *args: setup
    {{py}} -m warehouse.environment {{venv}}/bin/sqlmesh -p warehouse plan {{args}}

# Bring the warehouse up to date, today's partial bars included
warehouse-run *args: setup
    {{py}} -m warehouse.run {{args}}

# The one-time set-up of Snowflake (`--dry-run` only prints it, `--help` says what it needs)
snowflake-setup *args: setup
    {{py}} -m deploy.snowflake.setup {{args}}

# Install egxpy, which is on no package registry, from its repository at one commit
egxpy: setup
    uv pip install --quiet --python {{py}} --no-deps "egxpy @ git+https://github.com/egxlytics/egxpy@39703a3492f2a5f572c3c964c47d70e7bf4822ae"

# Write the closures that the calendar expects (after a change of the exchange_* seeds); --check only compares
calendar-seed *args: setup
    {{py}} -m dataflows.xcai {{args}}

# What is missing in the archive by the exchange's calendar
gaps *args: setup
    @{{py}} -m dataflows.gaps {{args}}

# Fetch exactly what is missing, and publish it
backfill *args: setup
    {{py}} -m dataflows.backfill {{args}}

# What each leg has done, how far it is behind and how fresh the stores are
status *args: setup
    @{{py}} -m dataflows.status {{args}}

# A page of the market and the pipeline in the browser, from the embedded stores: http://127.0.0.1:8501 unless that is taken
page *args: setup
    {{py}} -m streamlit run page/app.py {{args}}

# Run the warehouse now, then at 02:00 Cairo time and after each session's close
schedule *args: setup
    {{py}} -m warehouse.schedule {{args}}

# Write Grafana's dashboards and alerts anew after a change of deploy/grafana/definitions
dashboards: setup
    {{py}} -m deploy.grafana.definitions

# Take the pictures of docs/images anew (needs chromium and chromium-driver)
screenshots: setup
    {{py}} -m tests.page.screenshots

# Install Airflow, as deploy/airflow/requirements.lock says, into an environment of its own
airflow-install: setup
    @test -x {{airflow}}/bin/python || uv venv --quiet --python {{python}} {{airflow}}
    @test {{airflow}}/locked -nt deploy/airflow/requirements.lock || (uv pip install --quiet --compile-bytecode --python {{airflow}}/bin/python --require-hashes -r deploy/airflow/requirements.lock && touch {{airflow}}/locked)

# Test the DAGs of deploy/airflow in a real Airflow
airflow: airflow-install
    {{py}} -m pytest tests/deploy/test_airflow.py

# All tests (those for real servers too, once `just servers` has started them)
test *args: setup
    {{py}} -m pytest -n 2 --dist worksteal {{args}}

# Get and start Kafka, InfluxDB, S3 and Toxiproxy on loopback, without Docker (builds them once, about 6 minutes)
servers *names: setup
    {{py}} -m tests.servers start {{names}}

# Stop them and remove their data
servers-stop *names: setup
    {{py}} -m tests.servers stop {{names}}

# The same tests against compose.yaml's services, where there is Docker (credentials from .env)
test-compose *args: setup
    docker compose up --detach --wait kafka influxdb s3
    . ./.env; \
    EGX_TEST_KAFKA=127.0.0.1:${KAFKA_PORT:-9092} \
    EGX_TEST_INFLUXDB_URL=http://127.0.0.1:${INFLUXDB_PORT:-8086} EGX_TEST_INFLUXDB_TOKEN=$INFLUXDB_TOKEN EGX_TEST_INFLUXDB_ORG=egx \
    EGX_TEST_S3_ENDPOINT=http://127.0.0.1:${S3_PORT:-7070} AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET_KEY \
    {{py}} -m pytest -n 2 --dist worksteal {{args}}

# The long crash suite: 200 faults, a table at the end (needs what `just servers` builds)
crash *args: setup
    {{py}} -m tests.crash {{args}}

# Rewrite the code in the project's format
format: setup
    {{venv}}/bin/ruff format .
    {{venv}}/bin/ruff check --fix .

# Check the format
format-check: setup
    {{venv}}/bin/ruff format --check .

# Lint
lint: setup
    {{venv}}/bin/ruff check .

# Check the types, strictly on connectors/ and dataflows/
types: setup
    {{venv}}/bin/mypy

# Print the settings in effect, secrets masked
settings: setup
    @{{py}} -m dataflows.settings

# Measure against Telegraf, bare clients and the stores (docs/performance.md); `--quick` only checks that the measuring works
bench *args: setup
    {{py}} -m bench {{args}}

# Measure the warehouse beside dbt-duckdb on the same models; `--quick` only checks that the measuring works
bench-warehouse *args: setup
    {{py}} -m bench.warehouse {{args}}

# Resolve the dependencies of pyproject.toml and of deploy/airflow anew
lock:
    uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements.lock
    uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 deploy/airflow/requirements.in -o deploy/airflow/requirements.lock

# List the rejected messages; `just dead-letters --replay` publishes them again after a fix
dead-letters *args: setup
    @{{py}} -m dataflows.dead_letters {{args}}

# Remove what runs have made (data/), not the environment
[confirm("Remove data/ with its archive and stores? [y/N]")]
clean:
    rm -rf data
