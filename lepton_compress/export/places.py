"""Where in the user's model the nodes of a graph come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_of(node: onnx.NodeProto) -> str | None:
    """The layer that the exporter of torch has noted in a node's metadata; empty for what the model
    computes outside of its layers, None where nothing is noted."""
    scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), None)
    if scopes is None:
        return None
    # Written as a list of dotted names, the last but one of which is the layer.
    parts = [part for part in str(scopes).strip("[]").replace("'", "").split(", ") if part]
    return parts[-2] if len(parts) > 1 else ""


def places(graph: onnx.ModelProto) -> dict[str, str]:
    """Node to its layer: as its metadata says, else what stands before the last slash of its name,
    as in names that were given by the layer."""
    found = {}
    for node in graph.graph.node:
        noted = layer_of(node)
        found[node.name] = node.name.rpartition("/")[0] if noted is None else noted
    return {name: layer for name, layer in found.items() if layer}
