"""Training and calibration start processes from scripts without `if __name__ == "__main__":`, and from anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

READ = """
print("the script runs")
import torch
import spurious_memorization as sm
data = sm.from_tensors(torch.arange(12.0).reshape(6, 2), y=[0, 1] * 3, a=[0] * 6)
batches = list(data.train.augmented_batches(2, seed=0, epoch=1, workers=1))
print(sum(float(batch.inputs.sum()) for batch in batches))
"""


def ran(folder: Path, arguments: tuple[str, ...], text: str | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, input=text, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_plain_script_reads_in_further_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(READ)
    assert ran(tmp_path, ("script.py",)) == ["the script runs", "66.0"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["-m", "-c", "standard input"])
def test_other_ways_to_run_a_script(way: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(READ)
    arguments = {"-m": ("-m", "script"), "-c": ("-c", READ), "standard input": ("-",)}[way]
    assert ran(tmp_path, arguments, READ if way == "standard input" else None) == ["the script runs", "66.0"]


def test_a_plain_script_starts_a_pool_of_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "print('the script runs')\n"
        "import os\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from spurious_memorization.processes import without_main_script\n"
        "with ProcessPoolExecutor(2, mp_context=get_context('spawn')) as pool:\n"
        "    with without_main_script():\n"
        "        running = [pool.submit(os.getppid) for _ in range(3)]\n"
        "    print({done.result() == os.getpid() for done in running})\n"
        "print(os.path.basename(__file__))\n"
    )
    assert ran(tmp_path, ("script.py",)) == ["the script runs", "{True}", "script.py"]
