"""bsexport train: from a model and data to a Hugging Face directory whose weights are made to be pruned and coded."""
