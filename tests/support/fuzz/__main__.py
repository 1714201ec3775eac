"""Try many inputs of every target, and print how many were accepted and refused.

Call it from the folder `tests/support`: `python -m fuzz --inputs 1000`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from .outcomes import FINE, Outcome, counts, table, tried
from .server import Server
from .targets import TARGETS
from .valid import make_valid


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="number of inputs of all targets together")
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="only this target")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--verbose", action="store_true", help="show every input")
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    each = -(-options.inputs // len(targets))
    seeds = range(options.first, options.first + each) if options.seed is None else [options.seed]
    os.environ["OMP_NUM_THREADS"] = "1"
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as work, Server() as server:
        valid = make_valid(Path(work) / "valid")
        for target in targets:
            for seed in seeds:
                outcome = tried(target, TARGETS[target], seed, server, valid, Path(work))
                outcomes.append(outcome)
                if options.verbose or outcome.kind not in FINE:
                    print(outcome, flush=True)
    print(table(counts(outcomes)))
    slowest = max(outcomes, key=lambda outcome: outcome.ended.seconds)
    print(f"{sum(outcome.ended.seconds for outcome in outcomes):.0f} s in all; the slowest is {slowest}")


if __name__ == "__main__":
    main()
