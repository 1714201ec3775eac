"""Images, labels and spurious attributes: reading, making, preparing and checking data sets."""
