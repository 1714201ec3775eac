"""Independent pieces of work, run in this process, in further processes, or on the machines of a Ray cluster."""
