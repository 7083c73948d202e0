"""ONNX graphs: exported from torch, read from files, cleaned, and rewritten to the forms of a package."""
