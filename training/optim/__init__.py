"""Learning rate, early stopping, moving average of the weights."""
