"""bsexport: prune, quantise and exp-Golomb-code Hugging Face and ONNX models for small devices."""

__version__ = "0.1.0"
