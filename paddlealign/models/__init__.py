"""The decoder, its kernels, weights in and out, and generation."""
