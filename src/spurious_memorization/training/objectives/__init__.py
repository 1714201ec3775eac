"""What a training can minimize. Each file is one method, found by its name: `--objective group-dro` is group_dro.py.

A file defines one subclass of `ObjectiveSettings` (the options, and the facts that others need) and one subclass of
`Objective` (what the training loop does). A new method is a new file here, with no other change.
"""
