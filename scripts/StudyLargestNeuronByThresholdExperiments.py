"""Modify all weights beyond a threshold: `--help` lists the flags."""

from spurious_memorization.cli.app import run_script
from spurious_memorization.cli.scripts import largest_neuron_by_threshold

if __name__ == "__main__":
    run_script(largest_neuron_by_threshold)
