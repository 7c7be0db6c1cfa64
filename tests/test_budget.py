"""Budgets: the recipe's gates in a file of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compress.budget import Budget, Gates, read_budget
from lepton_compress.errors import RecipeError


def written(folder: Path, text: str) -> Path:
    path = folder / "budget.yaml"
    path.write_text(text)
    return path


def test_it_is_read_as_the_recipe_reads_its_gates(tmp_path: Path) -> None:
    made = read_budget(written(tmp_path, "drop: {limit: 1 %, strict: true}\nsize: 2 KB\n")).budget
    gates = Gates.model_validate({"drop": {"limit": "1 %", "strict": True}, "size": "2 KB"})
    assert dict(made.items()) == dict(gates.items())
    assert made.regression.latency.limit == 1.05


def test_it_says_where_each_gate_stands(tmp_path: Path) -> None:
    path = written(tmp_path, "size: 2 KB\n\nregression:\n  size: 1.5x\n")
    made = read_budget(path)
    assert made.place("size") == (str(path), 1)
    assert made.place("regression", "size") == (str(path), 4)
    assert made.place("regression", "latency") == (str(path), 3)
    assert made.place("drop") is None


def test_a_budget_has_every_gate_of_a_recipe() -> None:
    assert set(Budget.model_fields) == {*Gates.model_fields, "regression"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latncy: 2 ms\n", "budget.yaml:1: latncy: unknown key 'latncy'; did you mean 'latency'?"),
        ("drop: {limit: 1 %, strickt: true}\n", "did you mean 'strict'?"),
        ("regression: {sise: 1.1x}\n", "did you mean 'size'?"),
        ("size: 2\n", "2 is not a number with a unit; write for example '150 KB'"),
        ("size:\n", "budget.yaml:1: size: is empty; write a value, or remove the key"),
        ("flips: 120 %\n", "'120 %' is not from 0 % to 100 %"),
        ("parity: 0.01\n", "must be at most 0.0001"),
        ("x-limits: 1\n", "sets no gate"),
        ("", "the file is empty; write for example `latency_ratio: 0.9x`"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_its_mend(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read_budget(written(tmp_path, text))
    assert said in str(caught.value)


def test_every_mistake_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_budget(written(tmp_path, "latncy: 2 ms\nsize: 1 ms\n"))
    assert len(caught.value.others) == 1
