"""Whether exports, targets and gates of a recipe go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lepton_compress import serving
from lepton_compress.errors import RecipeError
from lepton_compress.recipe import Recipe, from_values

VALUES: dict[str, Any] = {
    "version": 1,
    "name": "demo",
    "model": {"onnx": "model.onnx"},
    "data": {"npz": {"path": "data.npz", "inputs": ["x"], "targets": "y"}},
    "metrics": ["accuracy"],
}
PHONE = {"name": "phone", "runtime": "litert-cpu"}


def read(**changes: Any) -> Recipe:
    return from_values({**VALUES, **changes}, Path()).recipe


def refused(**changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        read(**changes)
    assert not caught.value.others
    return str(caught.value)


class TestBatches:
    @pytest.mark.parametrize("given", [{}, {"signatures": [8]}, {"batch": 4, "signatures": [1]}])
    def test_a_call_of_the_file_takes_what_a_call_on_the_target_has(self, given: Any) -> None:
        made = read(exports=[{"litert": given}], targets=[PHONE])
        assert made.targets[0].batch == 1

    def test_a_list_of_batches_has_a_signature_each(self) -> None:
        phone = {**PHONE, "batch": [1, 8]}
        made = read(exports=[{"litert": {"signatures": [8]}}], targets=[phone])
        assert [each.batch for each in made.targets] == [1, 8]
        said = refused(exports=["litert"], targets=[phone])
        assert said == (
            "targets[1]: a call on phone/b8 has 8 samples, and one of the litert file 1; "
            "add it to the exporter, as `litert: {signatures: [8]}`"
        )

    def test_a_file_for_more_samples_is_none_for_one(self) -> None:
        said = refused(exports=[{"litert": {"batch": 4, "signatures": [2]}}], targets=[PHONE])
        assert "a call on phone has 1 sample, and one of the litert file 2 or 4" in said

    def test_what_simulates_looks_at_the_first_signature(self) -> None:
        both = {"batch": 4, "signatures": [1]}
        said = refused(exports=[{"litert": both}], targets=["cortex-m4-256k"])
        assert "cortex-m4-256k computes one sample a call, and the litert file 4" in said

    def test_an_onnx_file_takes_any(self) -> None:
        read(targets=[{"name": "cloud", "runtime": "onnxruntime-cpu", "batch": 200}])

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"signatures": [8, 2, 8]}, "signatures[2]: 8 stands twice; remove one of the two"),
            ({"batch": 2, "signatures": [2]}, "signatures[0]: 2 is the file's own batch"),
        ],
    )
    def test_a_batch_stands_once(self, given: Any, says: str) -> None:
        assert says in refused(exports=[{"litert": given}], targets=[PHONE])


class TestNarrowing:
    def test_the_baseline_keeps_its_weights(self) -> None:
        made = read(
            exports=[{"litert": {"weights": "dynamic", "borders": "int8"}}],
            targets=[PHONE],
            variants={"narrow": []},
        )
        (use,) = made.exports
        assert use.written("baseline").model_dump() == {
            **use.written("narrow").model_dump(),
            "weights": "float32",
        }
        assert (use.written("narrow").narrows, use.written("baseline").narrows) == (True, False)

    def test_without_a_variant_nothing_would_be_narrowed(self) -> None:
        said = refused(exports=[{"litert": {"weights": "float16"}}], targets=[PHONE])
        assert said == (
            "exports[0]: litert would round the weights of variants, and there is none; "
            "add `variants: {narrow: []}`"
        )

    def test_a_variant_without_steps_is_for_that_alone(self) -> None:
        said = refused(exports=["litert"], targets=[PHONE], variants={"same": []})
        assert said == "variants.same: must not be empty"


class TestGates:
    @pytest.mark.parametrize(
        ("gates", "says"),
        [
            ({"latency": "1 ms"}, "gates.latency: can never be told on sensor: tflite-micro tells"),
            (
                {"latency": {"limit": "1 ms", "targets": ["npu", "phone", "sensor"]}},
                "write `latency: {limit: ..., targets: [npu, phone]}`",
            ),
            ({"ram": {"limit": "1 MB", "targets": ["phone"]}}, "litert-cpu is measured, and tells"),
            ({"operator_coverage": "99 %"}, "targets: [npu, sensor]}`"),
            ({"cold_start": {"limit": "1 s", "targets": ["npu"]}}, "ethos-u simulates, and noth"),
            ({"throughput": "5/s"}, "targets: [phone]}`"),
            (
                {"latency": {"limit": "1 s", "percentile": "p90", "targets": ["npu"]}},
                "ethos-u tells one time, as p50, and no p90; drop it",
            ),
        ],
    )
    def test_what_a_target_can_never_tell_is_refused(self, gates: Any, says: str) -> None:
        assert says in refused(**self.three(), gates=gates)

    def test_what_it_can_is_taken(self) -> None:
        read(
            **self.three(),
            gates={
                "latency": {"limit": "1 s", "targets": ["npu", "phone"]},
                "ram": {"limit": "1 MB", "targets": ["npu", "sensor"]},
                "operator_coverage": {"limit": "99 %", "targets": ["npu", "sensor"]},
                "peak_memory": {"limit": "1 MB", "targets": ["phone"]},
                "size": "1 MB",
            },
        )

    @staticmethod
    def three() -> dict[str, Any]:
        npu = {"device": "ethos-u55-128", "name": "npu"}
        sensor = {"device": "cortex-m4-256k", "name": "sensor"}
        return {"exports": ["litert"], "targets": [npu, PHONE, sensor]}


def test_an_exporter_stands_once() -> None:
    said = refused(exports=["litert", {"litert": {"borders": "int8"}}], targets=[PHONE])
    assert said.startswith("exports[1]: the exporter 'litert' stands twice; keep one")


def test_a_format_that_no_target_takes_is_told() -> None:
    made = read(exports=["onnx", "litert"], targets=[PHONE])
    (said,) = serving.remarks(made)
    assert said.startswith("no target takes onnx files")
    assert serving.remarks(read(exports=["litert"], targets=[PHONE])) == []
