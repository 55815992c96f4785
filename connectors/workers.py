"""A process that answers requests side by side, each in a fork of its own, so that none can hang, leak or hold up another.

Both ends are here: `Workers` in the process that asks, `serve` in the one that answers. They speak JSON, an object a line.
What takes long to import is imported once, by the answering process; a fork of it costs milliseconds and shares its memory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from connectors.errors import PermanentError, TransientError

Message = dict[str, Any]
_GRACE_SECONDS: Final = 5.0  # for what lies between the two processes, beyond a request's own seconds


class Overran(TransientError):
    """A request was not answered in time, and its fork was killed."""


class Died(TransientError):
    """The answering process ended, or a fork of it did, without an answer."""


class Workers:
    """The answering process, started when it is first asked and again after it died; for use by several threads.

    It ends with this process, however that ends: its standard input closes.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, start_seconds: float = 60) -> None:
        """
        :arg command: runs `serve` with its standard input and output as they are given to it.
        :arg start_seconds: how long it may take until it is ready.
        """
        self._command, self._environment, self._start_seconds = command, environment, start_seconds
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, queue.SimpleQueue[Message | None]] = {}
        self._closed = False

    def ask(self, request: Message, seconds: float) -> Message:
        """The answer to a request, which has `seconds` for it.

        :raises Overran: it took longer, and was killed.
        :raises Died: the process ended, or `close` was called.
        :raises PermanentError: the process cannot be started.
        """
        answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        with self._lock:
            if self._closed:
                raise Died("closed")
            process = self._process or self._start()
            number = next(self._numbers)
            self._waiting[number] = answers
            try:
                stdin: Any = process.stdin
                stdin.write(json.dumps({"number": number, "seconds": seconds, "request": request}).encode() + b"\n")
                stdin.flush()
            except (OSError, ValueError):  # its end is closed, or ours: it was killed
                answers.put(None)
        try:
            answer = answers.get(timeout=seconds + _GRACE_SECONDS)
        except queue.Empty:
            self._kill(process)
            raise Overran(f"no answer within {seconds:g} s, nor from the process that should have said so") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if answer is None:
            raise Died("the process that asks the source ended")
        if "overran" in answer:
            raise Overran(f"no answer within {seconds:g} s")
        if "died" in answer:
            raise Died(f"the process that asked ended {answer['died']}")
        result: Message = answer["answer"]
        return result

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(self._environment),
            start_new_session=True,  # a Ctrl-C is for the asking process, which ends this one
        )
        ready: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(process, ready), name="workers", daemon=True).start()
        with contextlib.suppress(queue.Empty):
            if ready.get(timeout=self._start_seconds):
                self._process = process
                return process
        _kill_group(process)
        raise PermanentError(f"`{' '.join(self._command)}` did not start within {self._start_seconds:g} s, or ended: see above")

    def _read(self, process: subprocess.Popen[bytes], ready: queue.SimpleQueue[bool]) -> None:
        stdout: Any = process.stdout
        with stdout:
            for number, line in enumerate(stdout):
                if number == 0:
                    ready.put(True)
                elif line.endswith(b"\n"):  # else it died in the middle of it
                    answer = json.loads(line)
                    if (waiting := self._waiting.get(answer["number"])) is not None:
                        waiting.put(answer)
        ready.put(False)
        process.wait()
        self._ended(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        _kill_group(process)
        self._ended(process)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is process:
                self._process = None
                for waiting in self._waiting.values():
                    waiting.put(None)

    def rest(self) -> None:
        """Ends the process until the next request; requests under way fail."""
        with self._lock:
            process = self._process
        if process is not None:
            self._kill(process)

    def close(self) -> None:
        """Ends the process for good."""
        self._closed = True
        self.rest()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its forks too: they are in its session
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.wait()


@dataclass
class _Fork:
    number: int
    pid: int
    deadline: float
    killed: bool = False
    answer: bytearray = field(default_factory=bytearray)


def serve(answer: Callable[[Message, float], Message]) -> None:
    """Answers the requests on standard input until it ends.

    :arg answer: called in a fork with the request and its seconds; it returns what can be written as JSON. What it prints goes
        to standard error.
    """
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    out.write(b'{"ready":true}\n')
    forks: dict[int, _Fork] = {}  # by the descriptor to read its answer from
    pending = b""
    while True:
        timeout = max(
            0.0, min((fork.deadline for fork in forks.values() if not fork.killed), default=math.inf) - time.monotonic()
        )
        readable, _, _ = select.select([0, *forks], [], [], timeout if math.isfinite(timeout) else None)
        for descriptor in readable:
            if descriptor == 0:
                if not (piece := os.read(0, 1 << 16)):
                    break
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    reader, fork = _fork(json.loads(line), answer, out, forks)
                    forks[reader] = fork
            elif piece := os.read(descriptor, 1 << 20):
                forks[descriptor].answer += piece
            else:
                os.close(descriptor)
                _finish(forks.pop(descriptor), out)
        else:
            for fork in forks.values():
                if not fork.killed and fork.deadline <= time.monotonic():
                    os.kill(fork.pid, signal.SIGKILL)
                    fork.killed = True
            continue
        break
    for fork in forks.values():
        os.kill(fork.pid, signal.SIGKILL)
        os.waitpid(fork.pid, 0)


def _fork(
    line: Message, answer: Callable[[Message, float], Message], out: BinaryIO, others: Mapping[int, _Fork]
) -> tuple[int, _Fork]:
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (pid := os.fork()) == 0:
        status = 1
        try:
            signal.alarm(math.ceil(line["seconds"]) + 2)  # whatever it hangs in, and whoever else has died by then
            out.close()
            for descriptor in (0, reader, *others):
                os.close(descriptor)
            text = json.dumps(answer(line["request"], line["seconds"])).encode()
            with os.fdopen(writer, "wb") as file:
                file.write(text)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(writer)
    return reader, _Fork(line["number"], pid, time.monotonic() + line["seconds"])


def _finish(fork: _Fork, out: BinaryIO) -> None:
    _, status = os.waitpid(fork.pid, 0)
    if status == 0:
        result = b'"answer":' + bytes(fork.answer)
    elif fork.killed or os.waitstatus_to_exitcode(status) == -signal.SIGALRM:
        result = b'"overran":true'
    else:
        code = os.waitstatus_to_exitcode(status)
        result = f'"died":"with status {code}"'.encode()
    with memoryview(b'{"number":%d,%b}\n' % (fork.number, result)) as rest:
        while rest:
            rest = rest[out.write(rest) :]
