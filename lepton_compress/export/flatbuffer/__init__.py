"""LiteRT files written from an ONNX graph, weights and scales as the graph has them.

    trace       the ONNX graph at a fixed batch: shapes, constants    trace.py
    rewrite     patterns that one operator of LiteRT computes         rewrite.py
    convert     each node by a function for its type                  converter.py, *_operators.py
    build       tensors, operators and buffers of the file            builder.py, versions.py

Values lie in memory as their producers leave them (`layouts.py`); nothing is transposed before an
operator asks for it.
"""
