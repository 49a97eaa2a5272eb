"""Reference log-probs, optimizer, step, loop, checkpoints and the run log."""
