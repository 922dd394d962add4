"""`har-models` and `har-doctor`: what a model is and what this machine can do."""
