"""Whether this is the gate on a clean machine: there, what a test needs and does not find is an error, never a skip."""

import os


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")
