"""What is told to people, in their language: see ``language``."""
