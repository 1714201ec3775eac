"""Networks: building them by name, reading their weights safely, and running them."""
