"""What all tests share."""

import os

from hypothesis import HealthCheck, settings

# SQLMesh loads a project in forked processes. Forked from a test process, which holds the threads and the garbage of other
# libraries (DuckDB, librdkafka), one crashed once in Python's garbage collector.
os.environ.setdefault("MAX_FORK_WORKERS", "1")

pytest_plugins = ["tests.servers.fixtures", "tests.browsers", "tests.egxpy_double"]

# Properties: a few seconds each by default; EGX_HYPOTHESIS_PROFILE=long looks 30 times further.
_SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW)
settings.register_profile("long", max_examples=3_000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("EGX_HYPOTHESIS_PROFILE", "default"))
