"""Token log-probs to losses and metrics: pure functions of tensors."""
