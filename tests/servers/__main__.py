"""`python -m tests.servers`: runs the servers in the background.

start [NAME ...]         builds what is missing, starts the servers and waits until they are healthy
stop [NAME ...] [--keep] stops them and removes their data, unless --keep
status                   says what runs where; ends with 1 if nothing does
env                      prints the variables by which tests reach the servers, credentials included
"""

from __future__ import annotations

import argparse
import shlex
import sys

from tests.servers.build import BuildError
from tests.servers.process import ServerError
from tests.servers.running import SERVERS, recorded, running, start, state_file, stop


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.servers", description="Real servers on loopback, without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in (
        ("start", "build what is missing, start the servers and wait until they are healthy"),
        ("stop", "stop the servers and remove their data"),
        ("status", "say what runs where"),
        ("env", "print the variables by which tests reach the servers, credentials included"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name in ("start", "stop"):
            command.add_argument("servers", nargs="*", metavar="NAME", help=f"of {', '.join(SERVERS)}; all if none")
        if name == "stop":
            command.add_argument("--keep", action="store_true", help="leave the data where they are")
    given = parser.parse_args(arguments)
    names = list(dict.fromkeys(getattr(given, "servers", None) or SERVERS))
    if unknown := [name for name in names if name not in SERVERS]:
        parser.error(f"no server is called {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    try:
        match given.command:
            case "start":
                start(names)
                return _status()
            case "stop":
                for server in stop(names, keep_data=given.keep):
                    print(f"{server.name:10} stopped{f', data in {server.folder}' if given.keep else ''}")
            case "status":
                return _status()
            case "env":
                for server in running().values():
                    for name, value in server.environment.items():
                        print(f"export {name}={shlex.quote(value)}")
    except (BuildError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _status() -> int:
    alive = running()
    for name, server in recorded().items():
        where = f"127.0.0.1:{server.ports['main']}  pid {server.pid}" if name in alive else "ended without being stopped"
        print(f"{name:10} {where}  {server.folder}")
    if not alive:
        print(f"no server runs ({state_file()})")
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
