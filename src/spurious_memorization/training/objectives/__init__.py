"""What training minimizes: empirical risk, fine-tuning with pruning, and its rivals.

Each is a module of its own: a class that changes `Objective`, which is empirical risk minimization, where the method
differs from it. `settings` holds the options of all.
"""
