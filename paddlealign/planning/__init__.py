"""What a run takes on paper: memory, arithmetic, traffic and time of a layout, from the model's config alone, and the best layouts."""
