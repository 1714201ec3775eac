"""Train a network by ERM: `--help` lists the flags."""

from spurious_memorization.cli.app import run_script
from spurious_memorization.cli.scripts import pretraining_erm

if __name__ == "__main__":
    run_script(pretraining_erm)
