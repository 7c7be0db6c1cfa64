"""The picture of a training: every epoch a point, the best one marked."""

from __future__ import annotations

from dataclasses import replace

from lepton_compress.report.curve import HEIGHT, WIDTH, curves
from lepton_compress.report.html import html
from tests.report.results import result

CURVE = {"loss": [2.0, 1.0, 0.5], "validation_loss": [1.5, 1.0, 1.25]}
TOLD = {"curve": CURVE, "best_epoch": 2}


def test_lines_run_from_the_first_epoch_to_the_last() -> None:
    (made,) = curves(TOLD)
    lines = {
        kind: [tuple(map(float, point.split(","))) for point in points.split()]
        for kind, points in made.lines
    }
    assert list(lines) == ["training", "held-out"]
    assert all(points[0][0] == 6 and points[-1][0] == WIDTH - 6 for points in lines.values())
    assert lines["training"][0][1] == 6  # the largest loss is at the top
    assert lines["training"][-1][1] == HEIGHT - 6
    assert made.best == lines["held-out"][1][0]
    wanted = "loss by epoch, training 2 to 0.5; held-out 1.5 to 1.25; epoch 2 of 3 came out"
    assert made.caption == wanted


def test_trainings_inside_a_step_have_their_names() -> None:
    assert [each.caption.split(":")[0] for each in curves({"head": TOLD, "all": TOLD, "x": 1})] == [
        "head",
        "all",
    ]


def test_one_epoch_and_no_change_are_no_trouble() -> None:
    assert list(curves({"curve": {"loss": [1.0]}})) == []
    (made,) = curves({"curve": {"loss": [1.0, 1.0]}})
    assert "nan" not in made.lines[0][1]
    assert list(curves({"curve": "something else"})) == []


def test_it_stands_in_the_page() -> None:
    one = result()
    first = one.candidates[-1]
    told = replace(first.history[0], statistics=TOLD)
    page = html([replace(one, candidates=(replace(first, history=(told,)),))])
    assert page.count('<figure class="curve">') == 1
    assert '<polyline class="held-out" points="' in page
