"""The demo: a positive and a negative control, and every step on generated images, in minutes on a CPU."""
