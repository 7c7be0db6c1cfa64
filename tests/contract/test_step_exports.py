"""Every exporter that writes step models: frame by frame they give what the sequence does."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compress import registry
from lepton_compress.load import forms
from lepton_compress.verify import LIMIT, difference
from tests.contract.needed import of_kind
from tests.contract.test_exporters import RUNTIMES
from tests.export.recurrent import NETS, network, sequences

EXPORTERS = [
    name
    for name in of_kind("exporter")
    if "recurrent" in registry.get("exporter", name).params.model_fields
]


def test_there_are_some() -> None:
    assert "onnx" in EXPORTERS


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("net", NETS)
def test_a_step_artifact_runs_as_the_whole_sequence_does(
    exporter: str, net: str, tmp_path: Path
) -> None:
    model = network(net)
    plugin = registry.get("exporter", exporter)
    path = plugin.call(model, plugin.params.model_validate({"recurrent": "step"}), tmp_path)
    runner = registry.get("runtime", RUNTIMES[exporter]).function(path, 1)
    assert [spec.name for spec in runner.inputs] == [spec.name for spec in model.inputs]
    for seed in range(2):
        given = sequences(1, seed)
        made = dict(zip([spec.name for spec in runner.outputs], runner.run(given), strict=True))
        assert difference(forms.call(model, given), made) <= LIMIT
