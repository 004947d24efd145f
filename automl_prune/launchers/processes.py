"""Workers as processes of this machine, each with its share of the cores; those that die are replaced.

A worker is a fresh interpreter (CUDA does not survive a fork). It gets one JSON line on its standard input, which
then stays open: when it closes, the parent is gone, and the worker hands back its trial and ends. What it says goes
through a pipe of its own, so a worker that is killed in the middle of a word takes no lock with it.
"""

from __future__ import annotations

import json
import os
import pkgutil
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from automl_prune.errors import AutomlPruneError, Interrupted, StudyError
from automl_prune.launchers.base import Launcher, Say, cores, threads_each

REPLACEMENTS = 5
"""How often the place of a worker that died is filled again."""

_ENTRY = "from automl_prune.launchers.processes import child; child()"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_INTERRUPTED = 130


@dataclass(slots=True)
class _Child:
    """A running worker process."""

    number: int
    process: subprocess.Popen[str]
    log: IO[bytes]
    hearing: threading.Thread = field(init=False)
    error: str | None = None

    def last_words(self) -> str:
        """The last line it wrote to its standard error, if any."""
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - 4096))
        lines = [line for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1].strip()}" if lines else ""

    def close(self) -> None:
        """Wait for the end of the process and close what connects it with this one."""
        self.process.wait()
        self.hearing.join()
        for end in (self.process.stdin, self.process.stdout, self.log):
            if end is not None:
                with suppress(OSError):  # what it was never told
                    end.close()


@dataclass(slots=True)
class LocalProcesses:
    """Workers on this machine.

    Attributes:
        count: How many, at least 1.
        devices: Torch devices, given out in turn; without any, every worker takes what its configuration says.
        replacements: How often each worker may die before its place stays empty.
        grace: Seconds that workers have to hand back their trials before they are killed.
    """

    count: int
    devices: Sequence[str] = ()
    replacements: int = REPLACEMENTS
    grace: float = 10.0
    _children: dict[int, _Child] = field(default_factory=dict, init=False)
    _words: queue.SimpleQueue[tuple[_Child, str | None]] = field(default_factory=queue.SimpleQueue, init=False)

    def describe(self) -> str:
        """E.g. ``2 workers with 1 thread each on 2 cores``."""
        threads, here = threads_each(self.count), cores()
        where = f", on {', '.join(self.devices)} in turn" if self.devices else ""
        return (
            f"{_plural(self.count, 'worker')} with {_plural(threads, 'thread')} each on {_plural(here, 'core')}{where}"
        )

    def run(self, function: str, arguments: Mapping[str, Any], say: Say, tick: Callable[[], object]) -> None:
        """See ``Launcher.run``."""
        left = dict.fromkeys(range(self.count), self.replacements)
        try:
            for number in left:
                self._start(number, function, arguments)
            beat = time.monotonic()
            while self._children:
                self._listen(function, arguments, left, say)
                if time.monotonic() - beat >= 2:
                    beat = time.monotonic()
                    tick()
        finally:
            self._stop(say)

    def _start(self, number: int, function: str, arguments: Mapping[str, Any]) -> None:
        device = self.devices[number % len(self.devices)] if self.devices else None
        environment = os.environ | dict.fromkeys(_THREADS, str(threads_each(self.count)))
        log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-c", _ENTRY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which tells the others
        )
        child = _Child(number, process, log)
        self._children[number] = child
        order = {
            "path": [entry or os.getcwd() for entry in sys.path],
            "function": function,
            "arguments": {**arguments, "number": number, "device": device},
        }
        child.hearing = threading.Thread(target=self._hear, args=(child, json.dumps(order)), daemon=True)
        child.hearing.start()

    def _hear(self, child: _Child, order: str) -> None:
        assert child.process.stdin is not None
        assert child.process.stdout is not None
        with suppress(OSError):  # it is dead already, which the end of its output tells
            child.process.stdin.write(order + "\n")
            child.process.stdin.flush()
        for line in child.process.stdout:
            self._words.put((child, line))
        child.process.wait()
        self._words.put((child, None))

    def _listen(self, function: str, arguments: Mapping[str, Any], left: dict[int, int], say: Say) -> None:
        """Handle what one worker says, or its end."""
        try:
            child, line = self._words.get(timeout=2)
        except queue.Empty:
            return
        if line is not None:
            self._heard(child, line, say)
            return
        del self._children[child.number]
        status, words = child.process.returncode, child.last_words()
        child.close()
        if child.error is not None:
            raise StudyError(child.error)
        if status == 0:
            return
        how = f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
        if left[child.number]:
            left[child.number] -= 1
            say(f"worker {child.number} {how}{words}; another takes its place")
            self._start(child.number, function, arguments)
            return
        say(f"worker {child.number} {how}{words}; it was replaced {self.replacements} times, its place stays empty")
        if not self._children:
            raise StudyError(
                f"every worker died {self.replacements + 1} times, the last one {how}{words}; mend that, then run the "
                "same command again to go on"
            )

    def _heard(self, child: _Child, line: str, say: Say) -> None:
        try:
            word = json.loads(line)
        except ValueError:
            return  # killed in the middle of a word
        if "error" in word:
            child.error = str(word["error"])
        else:
            say(f"worker {child.number}: {word['say']}")

    def _stop(self, say: Say) -> None:
        """Ask every worker to hand back and end; kill those that do not in time, or when interrupted again."""
        try:
            for child in self._children.values():
                child.process.terminate()
            deadline = time.monotonic() + self.grace
            while self._children and time.monotonic() < deadline:
                try:
                    child, line = self._words.get(timeout=0.1)
                except queue.Empty:
                    continue
                if line is not None:
                    self._heard(child, line, say)
                else:
                    self._children.pop(child.number, None)
                    child.close()
        finally:
            for child in self._children.values():
                child.process.kill()
                child.close()
            self._children.clear()


def child() -> None:
    """The life of a worker process."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever the user's code prints must not pass for a word of the worker
    lock = threading.Lock()

    def send(**word: str) -> None:
        try:
            with lock:
                channel.write(json.dumps(word) + "\n")
        except OSError:
            pass  # nobody listens any more

    signal.signal(signal.SIGTERM, _interrupt)
    status = 1
    try:
        order = json.loads(sys.stdin.readline())
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        sys.path[:] = order["path"]
        pkgutil.resolve_name(order["function"])(**order["arguments"], say=lambda text: send(say=text))
        status = 0
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except (AutomlPruneError, OSError) as error:
        send(error=str(error))
    sys.exit(status)


def _leave_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


_proof: Launcher = LocalProcesses(1)  # the type checker proves that it is one
