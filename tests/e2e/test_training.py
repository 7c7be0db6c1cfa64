"""Training as a user runs it: killed and gone on with, gone astray, with losses of all kinds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.errors import EXIT_OK, EXIT_UNEXPECTED, EXIT_USER
from tests.bench import MODULE, Bench, copy_of, kill, refused, wait_until

LONG = {"epochs": 30, "batch_size": 8, "checkpoint": "1 ms", "patience": 100}


def unfinished(bench: Bench) -> list[Path]:
    return list(bench.folder.glob(".lepton/store/unfinished/*/*/training.json"))


def done(bench: Bench) -> int:
    """Updates before the checkpoint that is on disk."""
    for each in unfinished(bench):
        try:
            return int(json.loads(each.read_text())["done"])
        except FileNotFoundError:
            continue
    return 0


def statistics(bench: Bench, candidate: str) -> dict[str, Any]:
    held = next(each for each in bench.result()["candidates"] if each["id"] == candidate)
    found: dict[str, Any] = held["history"][0]["statistics"]
    return found


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    recipe = {"threads": 1, "variants": {"tuned": [{"finetune": LONG}]}}
    whole = copy_of(bench.folder, tmp_path / "whole")
    for each in (bench, whole):
        each.recipe(MODULE, **recipe)
    ended = whole.lepton("run", "recipe.yaml")
    assert ended.code == EXIT_OK, ended
    steps = statistics(whole, "tuned")["steps"]
    for share in (0.25, 0.6):
        process = bench.start("run", "recipe.yaml")
        assert wait_until(lambda share=share: done(bench) > share * steps, process)  # type: ignore[misc]
        kill(process)
    stood = done(bench)
    assert 0 < stood < steps
    resumed = bench.lepton("run", "recipe.yaml")
    assert resumed.code == EXIT_OK, resumed
    assert re.search(rf"note  training goes on from step \d+ of {steps}", resumed.err), resumed
    assert bench.digests() == whole.digests()
    assert statistics(bench, "tuned") == statistics(whole, "tuned")
    assert unfinished(bench) == []
    page = (bench.folder / "runs/tiny/report.html").read_text()
    assert "loss by epoch" in page


def test_a_loss_that_is_lost_leaves_the_last_good_state(bench: Bench) -> None:
    wild = {"epochs": 3, "learning_rate": 10, "clip": 1e30, "weight_decay": 1, "batch_size": 4}
    (bench.folder / "own.py").write_text(
        "def f(outputs, targets):\n    return (outputs['scores'] ** 8).mean()\n"
    )
    bench.recipe(MODULE, variants={"a": [{"finetune": {**wild, "loss": "own.py:f"}}]})
    ended = bench.lepton("run", "recipe.yaml")
    assert ended.code == EXIT_UNEXPECTED, ended
    found = re.search(
        r"error: training: the loss became \S+ in epoch \d, step \d+ of \d+; the last good "
        r"checkpoint, of step \d+, is (\S+); lower learning_rate, or lengthen warmup",
        ended.err,
    )
    assert found, ended
    assert (bench.folder / found[1] / "training.json").is_file()
    assert "Traceback" not in ended.err
    assert not (bench.folder / "runs").exists()


class TestRefused:
    def test_a_dataset_without_labels(self, bench: Bench) -> None:
        data = (bench.folder / "data.py").read_text()
        bare = data.replace("= (images.astype(np.float32), labels)", "= images.astype(np.float32)")
        named = "images.astype(np.float32), labels"
        bare = bare.replace(
            "    return made", f'    made["evaluation"] = ({named})\n    return made'
        )
        (bench.folder / "data.py").write_text(bare)
        bench.recipe(MODULE, variants={"a": ["finetune"]})
        ended = bench.lepton("run", "recipe.yaml")
        assert ended.code == EXIT_USER, ended
        says = r"variants\.a\[0\]: data: train: the train split has no targets; use distil"
        assert re.search(says, ended.err), ended

    @pytest.mark.parametrize(
        ("parameters", "says"),
        [
            ({"loss": "cross_entropie"}, "unknown loss 'cross_entropie'; did you mean 'cross_entr"),
            ({"validation": "110 %"}, r"finetune\.validation: "),
            ({"precision": "int8"}, r"finetune\.precision: must be 'auto', 'float32'"),
            ({"patience": 0}, r"finetune\.patience: "),
            ({"loss": "own.py:f"}, r"variants\.a\[0\].*own\.py.*no such file"),
        ],
    )
    def test_parameters_that_cannot_be(
        self, bench: Bench, parameters: dict[str, Any], says: str
    ) -> None:
        bench.recipe(MODULE, variants={"a": [{"finetune": parameters}]})
        refused(bench.lepton("plan", "recipe.yaml"), (says,))


def test_a_changed_loss_is_trained_with_again(bench: Bench) -> None:
    own = bench.folder / "own.py"
    text = "def f(outputs, targets):\n    return outputs['scores'].square().mean() * {}\n"
    bench.recipe(MODULE, variants={"a": [{"finetune": {"loss": "own.py:f", "epochs": 1}}]})
    keys = []
    for factor in (1, 2, 1):
        own.write_text(text.format(factor))
        planned = bench.lepton("plan", "recipe.yaml", "--json")
        assert planned.code == EXIT_OK, planned
        stages = json.loads(planned.out)["variants"][1]["stages"]
        keys.append(next(each["key"] for each in stages if each["name"] == "finetune"))
    assert keys[0] == keys[2] != keys[1]
