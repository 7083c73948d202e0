"""The paper's experiments, run again on models and data of the user's choice, beside the paper's own figures."""
