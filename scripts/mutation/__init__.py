"""One-line faults put into the package one at a time, and the tests that notice each: see ``__main__``."""
