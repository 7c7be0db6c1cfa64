"""ONNX graphs as torch programs of ATen operators, which ExecuTorch lowers.

`network.py` holds the graph as a module, one function for each ONNX operator (`*_operators.py`);
`rounding.py` is what QuantizeLinear and DequantizeLinear become; `program.py` lowers the module to
the bytes of a .pte file.
"""
