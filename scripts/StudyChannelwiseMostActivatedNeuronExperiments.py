"""Modify the channels with the largest gradients on a group's hardest samples: `--help` lists the flags."""

from spurious_memorization.cli.app import run_script
from spurious_memorization.cli.scripts import most_activated_neuron

if __name__ == "__main__":
    run_script(most_activated_neuron)
