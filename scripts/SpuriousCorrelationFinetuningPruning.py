"""Fine-tune a network with pruning: `--help` lists the flags."""

from spurious_memorization.cli.app import run_script
from spurious_memorization.cli.scripts import finetuning_pruning

if __name__ == "__main__":
    run_script(finetuning_pruning)
