"""What a model is worth: figures over scored rows."""
