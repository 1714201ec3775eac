"""A process that has imported everything once. Every command runs in a fork of it, with limits of memory and time.

Run as a script, it reads one job per line of its input and answers each with one line.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 3 * 2**30
"""What a command may allocate, in bytes, on top of the imported libraries. Reserved addresses don't count."""

FILE_SIZE = 2**28
"""The largest file that a command may write, in bytes."""

SECONDS = 60
"""The longest time that a command may take."""

FOLDER = "in"
"""The folder, below the place of an input, in which its command runs."""

PRELOADED = (
    "spurious_memorization.calibration.calibrate",
    "spurious_memorization.cli",
    "spurious_memorization.comparison.compare",
    "spurious_memorization.comparison.unit_tracking",
    "spurious_memorization.datasets.check",
    "spurious_memorization.demo.flow",
    "spurious_memorization.paper.reproduce",
    "spurious_memorization.reporting.figures.write_figures",
    "spurious_memorization.reporting.page.write_page",
    "spurious_memorization.runs.edited",
    "spurious_memorization.runs.importing",
    "spurious_memorization.training.mitigate",
    "pyarrow.parquet",
    "tiny_networks",
    "torch._dynamo",
    "torch.export._trace",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Arguments:
        status: its exit status; negative for the signal that killed it.
        late: whether it was killed because it took too long.
        seconds: how long it took.
        out: its standard output.
        err: its standard error.
    """

    status: int
    late: bool
    seconds: float
    out: str
    err: str


class Server:
    """The process that forks. Use it as a context manager."""

    def __enter__(self) -> Server:
        support = Path(__file__).parents[1]
        paths = [str(support), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        quiet = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **quiet},
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, arguments: Sequence[str], place: Path, seconds: float = SECONDS) -> Ended:
        """Run `spurmem` with these arguments in the folder `FOLDER` of a place, at most for this time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(arguments), str(place), seconds]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        out, err = ((place / name).read_text("utf-8", errors="replace") for name in ("stdout", "stderr"))
        return Ended(**answer, out=out, err=err)


def _serve() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_forked(*json.loads(line))) + "\n")
        answers.flush()


def _forked(arguments: list[str], place: str, seconds: float) -> dict[str, Any]:
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(arguments, Path(place))
    late, code = False, None
    while code is None:
        time.sleep(0.005)
        ended, code_now = os.waitpid(child, os.WNOHANG)
        if ended:
            code = code_now
        elif time.monotonic() - start > seconds:
            late = True
            _kill_group(child)
    _kill_group(child)
    return {"status": os.waitstatus_to_exitcode(code), "late": late, "seconds": time.monotonic() - start}


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _child(arguments: list[str], place: Path) -> None:
    """Run the command line in this process, and end it."""
    os.setsid()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(place / FOLDER)
    os.environ |= {
        "HOME": str(place / FOLDER),
        "TMPDIR": str(place / FOLDER),
        "SPURMEM_CACHE": str(place / FOLDER / "cache"),
        "HF_HUB_OFFLINE": "1",
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    }
    in_use = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    for limit, value in ((resource.RLIMIT_DATA, in_use + MEMORY), (resource.RLIMIT_FSIZE, FILE_SIZE)):
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = 70
    try:
        from spurious_memorization.cli import main

        main(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            status = 71
        os._exit(status)


if __name__ == "__main__":
    _serve()
