"""The demo: every step on generated images, in minutes on a CPU."""
