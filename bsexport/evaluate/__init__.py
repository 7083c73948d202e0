"""How good a model's answers are: examples made of data, run through the device's runtime, and measured."""
