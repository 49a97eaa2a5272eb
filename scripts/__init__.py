"""Scripts that make and show the sample task. Run them from the repository's root: ``python -m scripts.sample.NAME``."""
