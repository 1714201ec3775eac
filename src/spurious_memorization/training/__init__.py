"""Training networks, and importing those trained elsewhere: both end in a run with a network per epoch."""
