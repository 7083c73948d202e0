"""What a model's weights are like and what codes make of them: the paper's figure 1 and table 3 for any model."""
