"""What stands before a model's inputs and behind its outputs, in Python and as ONNX nodes."""
