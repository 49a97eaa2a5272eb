"""Several processes: their groups, the layers that they share, and the pipeline's schedule."""
