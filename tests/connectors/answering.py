"""A process that answers requests for test_workers.py, well and badly."""

import os
import sys
import threading
import time
from typing import Any

from connectors.workers import serve


def answer(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    match request["do"]:
        case "echo":
            print("this goes to standard error")
            return {"said": request["say"], "pid": os.getpid()}
        case "much":
            return {"text": "x" * request["size"]}
        case "hang":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()  # the second time never returns
        case "exit":
            os._exit(request["status"])
        case "fail":
            raise RuntimeError("on purpose")
        case "kill_server":
            os.kill(os.getppid(), 9)
            time.sleep(60)
    return {}


if __name__ == "__main__":
    if "broken" in sys.argv:
        sys.exit("cannot start")
    serve(answer)
