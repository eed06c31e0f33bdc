"""What a network starts from, and the mean of several."""
