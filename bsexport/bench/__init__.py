"""Measure a package beside plain onnxruntime on the fp32 file, each in fresh processes taken in turn."""
