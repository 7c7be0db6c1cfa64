"""What to change where a device does not take an operator."""

from __future__ import annotations

QUANTISE = "quantise it to int8, weights and activations, as `quantize` does"
_LEFT = (
    "quantise it as the rest is; what belongs to `preprocess` or `postprocess`, leave to the host"
)
_EDGE = "let the artifact take and give integers: `litert: {borders: int8}` among the exports"
_BEHIND = "move it out of the model, into what prepares the inputs or reads the outputs"
_BY_TYPE = {
    **dict.fromkeys(("GELU", "ELU", "SELU", "SOFTPLUS"), "use ReLU, ReLU6 or hard-swish"),
    **dict.fromkeys(("FLOOR", "CEIL", "ROUND", "SIGN", "FLOOR_DIV", "FLOOR_MOD"), _BEHIND),
    **dict.fromkeys(("TOPK_V2", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"), _BEHIND),
    "EMBEDDING_LOOKUP": "look embeddings up on the host, and give the model their rows",
    "GATHER": "look embeddings up on the host, and give the model their rows",
    "GATHER_ND": "look embeddings up on the host, and give the model their rows",
    "POW": "write a square as a product",
    "DIV": "write a division by a constant as a product",
    "CAST": "give the model what it computes with: leave `preprocess` to the host",
    "CUSTOM": "write it with built-in operators",
    "WHILE": "give the model one step, and let the host loop",
    "CALL_ONCE": "keep the state outside: give it in, take it out",
    "BATCH_MATMUL": "make one of the two a constant, as a dense layer has it",
    "TRANSPOSE": "export with channels last, or move the axes on the host",
}
_MIXED = {
    "MEAN": "`quantize` leaves a mean in float where what it takes is: write it as a global "
    "average pooling behind a quantised layer, or do what is before it on the host",
    **dict.fromkeys(
        ("QUANTIZE", "DEQUANTIZE"), "it goes when its neighbour that computes in float is quantised"
    ),
}
"""Of what stays in float though the rest is quantised."""
_FLOAT = ("float32", "float16", "float64", "hybrid")


def remedy(operator: str, reason: str = "", *, edge: bool = False, mixed: bool = False) -> str:
    """What helps against a fallback; empty where nothing is known.

    Args:
        operator: its type in the LiteRT schema.
        reason: in the words of the compiler or runtime.
        edge: whether it only converts an input or output of the model.
        mixed: whether others of the artifact run on the device.
    """
    if edge:
        return _EDGE
    if any(word in reason.lower() for word in _FLOAT):
        return _MIXED.get(operator, _LEFT) if mixed else QUANTISE
    return _BY_TYPE.get(operator, "")
