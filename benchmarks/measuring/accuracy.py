"""Verdicts of the accuracy gate on drops of known size, over fresh samples each time."""

from __future__ import annotations

import numpy as np

from lepton_compress import evaluate
from lepton_compress.artifacts import Score
from lepton_compress.budget import Gates
from lepton_compress.gate import judge_gates
from lepton_compress.readings import Measured
from tests.measured import artifact

PLANTED = (0.0, 0.01, 0.02, 0.03, 0.08)
LIMIT = 0.02
SAMPLES, RESAMPLINGS = 500, 1000


def accuracy() -> list[dict[str, float]]:
    """Shares of verdicts of a 2 % gate, strict and by point, and how often the drop's interval
    holds what was planted."""
    rows = []
    for drop in PLANTED:
        counts = dict.fromkeys(
            ("strict_PASS", "strict_FAIL", "strict_INCONCLUSIVE", "point_PASS", "point_FAIL"), 0
        )
        held = 0
        for seed in range(RESAMPLINGS):
            score = _planted(drop, seed)
            for manner in ("strict", "point"):
                counts[f"{manner}_{_verdict(score, strict=manner == 'strict')}"] += 1
            held += score.drop_interval[0] <= drop <= score.drop_interval[1]
        shares = {name: count / RESAMPLINGS for name, count in counts.items()}
        rows.append({"planted": drop, **shares, "covered": held / RESAMPLINGS})
    return rows


def _planted(drop: float, seed: int) -> Score:
    """A baseline right on nine of ten; the variant loses `drop` more than it wins, and flips."""
    draw = np.random.default_rng([seed, int(1e6 * drop)])
    before = draw.random(SAMPLES) < 0.9
    lost = before & (draw.random(SAMPLES) < (drop + 0.02) / 0.9)
    won = ~before & (draw.random(SAMPLES) < 0.02 / 0.1)
    base = _score("baseline", before.astype(float))
    return evaluate.compare(base, _score("variant", ((before & ~lost) | won).astype(float)))


def _verdict(score: Score, *, strict: bool) -> str:
    gates = Gates.model_validate({"drop": {"limit": f"{100 * LIMIT:g} %", "strict": strict}})
    found = Measured("baseline", [artifact("variant")], [], [score], [])
    made = judge_gates(gates, found, metric="accuracy", targets=["here"])
    return str(next(each.status for each in made if each.gate == "drop"))


def _score(candidate: str, outcomes: np.ndarray) -> Score:
    value, held = float(outcomes.mean()), tuple(outcomes.tolist())
    return Score(candidate, "onnx", "accuracy", True, value, (0, 1), len(held), held)
