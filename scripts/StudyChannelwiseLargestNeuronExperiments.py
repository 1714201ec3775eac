"""Modify the channels with the largest weights: `--help` lists the flags."""

from spurious_memorization.cli.app import run_script
from spurious_memorization.cli.scripts import largest_neuron

if __name__ == "__main__":
    run_script(largest_neuron)
