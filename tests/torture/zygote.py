"""Children by fork from one process that has imported everything, so that each starts at once.

``Zygote.start`` runs a function of ``deeds`` in a child. The child ends as a Python process does
(threads joined, ``atexit``), or when it is killed. What it tells through its pipe before a kill is
heard; when the zygote's parent ends, however it does, the zygote and its children end too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
PATIENCE = 60.0  # seconds for anything that a child should do, on a busy machine
STACKS = signal.SIGUSR1  # has a child write its stacks to its log


class HungError(AssertionError):
    """A child did not do in time what it should."""


class Child:
    """A child at work: what it tells, and how it ends."""

    def __init__(self, zygote: Zygote, pid: int, pipe: int, log: Path):
        self.pid, self.log = pid, log
        self.told: list[dict[str, Any]] = []
        self._zygote, self._pipe = zygote, pipe
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with os.fdopen(self._pipe, "rb") as pipe:
            for line in pipe:
                if not line.endswith(b"\n"):  # killed while it told
                    break
                with self._changed:
                    self.told.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for(self, told: Callable[[list[dict[str, Any]]], Any], seconds: float = PATIENCE):
        """Wait until this is true of what it told, or it ended; give whether it is true."""
        with self._changed:
            in_time = self._changed.wait_for(lambda: told(self.told) or self._closed, seconds)
            if not in_time:
                self._hung("did not tell what was awaited")
            return bool(told(self.told))

    def heard(self, kind: str) -> list[Any]:
        """What it told under this name, in order."""
        with self._changed:
            return [event[kind] for event in self.told if kind in event]

    def wait_for_word(self, kind: str, count: int = 1, seconds: float = PATIENCE) -> bool:
        """Wait until it told so many things under this name, or ended."""
        return self.wait_for(lambda told: sum(kind in event for event in told) >= count, seconds)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, how)

    @property
    def ended(self) -> bool:
        """Whether it is gone and its parent knows."""
        return self.pid in self._zygote.statuses

    def end(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; give its exit code, or minus the signal."""
        until = time.monotonic() + seconds
        with self._zygote.changed:
            if not self._zygote.changed.wait_for(lambda: self.ended, seconds):
                self._hung("did not end")
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed, max(1, until - time.monotonic())):
                self._hung("left its pipe open")
        return self._zygote.statuses[self.pid]

    def _hung(self, what: str) -> None:
        self.kill(STACKS)
        time.sleep(0.5)
        self.kill()
        raise HungError(f"child {self.pid} {what}:\n{self.said()[-4000:]}")

    def said(self) -> str:
        """Its standard error."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Zygote:
    """The process that forks; see the module."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None):
        self.statuses: dict[int, int] = {}
        self.processor = 0.0  # seconds that ended children took
        self.changed = threading.Condition()
        self._folder, self._number = folder, 0
        self._answers: list[int] = []
        self._lock = threading.Lock()
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with (folder / "zygote.log").open("wb") as log, other:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, str(other.fileno())],
                pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
            )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while message := self._control.recv(4096):
            pid, status, processor = json.loads(message)
            with self.changed:
                self.processor += processor
                if status is None:
                    self._answers.append(pid)
                else:
                    self.statuses[pid] = status
                self.changed.notify_all()

    def start(self, deed: str, environment: dict[str, str] | None = None, **arguments: Any):
        """Begin a deed in a new child."""
        with self._lock:
            self._number += 1
            log = self._folder / f"child-{self._number}.log"
            order = {"deed": deed, "log": str(log), "arguments": arguments}
            order["environment"] = environment or {}
            read, write = os.pipe()
            socket.send_fds(self._control, [json.dumps(order).encode()], [write])
            os.close(write)
            with self.changed:
                if not self.changed.wait_for(lambda: self._answers, PATIENCE):
                    raise HungError(f"no zygote: {(self._folder / 'zygote.log').read_text()}")
                return Child(self, self._answers.pop(), read, log)

    def close(self) -> None:
        """End it; its children end with it."""
        self._control.shutdown(socket.SHUT_RDWR)
        self.process.kill()
        self.process.wait()
        self._listener.join()
        self._control.close()


def with_parent(how: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel end this process when its parent ends."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, int(how))


def _serve(control: socket.socket) -> tuple[dict[str, Any], int] | None:
    """Fork a child for every order; return in the child with its order, or None at the end."""
    alive: set[int] = set()
    while True:
        ready, _, _ = select.select([control], [], [], 0.005 if alive else None)
        if ready:
            message, pipes, _, _ = socket.recv_fds(control, 1 << 20, 1)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                with_parent()
                control.close()
                return json.loads(message), pipes[0]
            os.close(pipes[0])
            alive.add(pid)
            control.send(json.dumps([pid, None, 0]).encode())
        for pid in list(alive):
            done, status, used = os.wait4(pid, os.WNOHANG)
            if done:
                alive.discard(pid)
                code, processor = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
                control.send(json.dumps([pid, code, processor]).encode())


def _main() -> None:
    with_parent()
    import atexit
    import faulthandler
    import gc

    import deeds

    gc.collect()
    gc.freeze()  # else a collection in a child would copy all that is imported
    found = _serve(socket.socket(fileno=int(sys.argv[1])))
    if found is None:
        return
    order, pipe = found
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(STACKS)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has us ignore it
    os.environ.update(order["environment"])

    def tell(**event: Any) -> None:
        os.write(pipe, json.dumps(event).encode() + b"\n")

    code = 0
    try:
        getattr(deeds, order["deed"])(tell, **order["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # The end of a Python process, but for the taking apart of modules, which takes longer than most
    # deeds.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
