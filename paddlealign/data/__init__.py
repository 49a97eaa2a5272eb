"""Files to records, examples and packed batches; no Paddle in it."""
