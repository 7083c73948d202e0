"""What pruning and quantising do to a model's answers: measured over a grid, through the device's runtime."""
