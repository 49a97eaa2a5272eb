"""Each method from arguments to result, top to bottom."""
