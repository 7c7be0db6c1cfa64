"""Two runs beside each other: what may be compared is, what may not is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import Fit, RunResult, Status
from lepton_compress.compare import compare, differences
from lepton_compress.comparison import Comparison, LatencyPair
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.report.compare import _ratio, _times
from lepton_compress.report.folder import to_json
from tests.report.results import profile, result


def written(folder: Path, held: RunResult) -> str:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(to_json(held))
    return str(folder)


def compared(tmp_path: Path, one: RunResult, other: RunResult, name: str = "") -> Comparison:
    suffix = f":{name}" if name else ""
    sides = [written(tmp_path / n, held) + suffix for n, held in (("one", one), ("two", other))]
    return compare(*sides)


def environment(**changes: Any) -> dict[str, Any]:
    return result().environment | changes


class TestPairs:
    def test_a_run_with_itself_differs_in_nothing(self, tmp_path: Path) -> None:
        found = compared(tmp_path, result(), result())
        assert [(p.one, p.other, p.same_file) for p in found.pairs] == [
            ("baseline", "baseline", True),
            ("int8", "int8", True),
        ]
        for pair in found.pairs:
            (score,), (latency,) = pair.scores, pair.latencies
            assert (score.drop, score.lost, score.gained) == (0.0, 0, 0)
            assert latency.ratio == 1.0
            assert pair.bytes_one == pair.bytes_other
        assert (found.only_one, found.only_other) == ((), ())
        (note,) = found.notes
        assert note.startswith("files that are the same took 1.00x as long in the second run: ")

    def test_drops_are_paired_by_sample(self, tmp_path: Path) -> None:
        base, other = result().scores
        worse = replace(other, value=0.25, outcomes=(0.0, 1.0, 0.0, 0.0))
        (_, pair) = compared(tmp_path, result(), result(scores=(base, worse))).pairs
        (score,) = pair.scores
        assert (score.one, score.other) == (0.97, 0.25)
        assert (score.lost, score.gained) == (2, 0)
        assert score.interval is not None
        assert score.interval[0] <= 0.5 <= score.interval[1]

    def test_the_drop_of_an_error_is_its_rise(self, tmp_path: Path) -> None:
        scores = tuple(replace(s, higher_is_better=False) for s in result().scores)
        risen = (scores[0], replace(scores[1], value=1.07, outcomes=None))
        (_, pair) = compared(tmp_path, result(scores=scores), result(scores=risen)).pairs
        assert pair.scores[0].drop == pytest.approx(0.1)
        assert pair.scores[0].interval is None

    @pytest.mark.parametrize(("count", "paired"), [(40, True), (39, False), (0, False)])
    def test_a_metric_that_is_no_mean_is_paired_by_resample(
        self, tmp_path: Path, count: int, paired: bool
    ) -> None:
        base, other = (replace(s, outcomes=None) for s in result().scores)
        one = replace(other, replicates=tuple(0.97 + i / 1e4 for i in range(40)))
        two = replace(other, value=0.9, replicates=tuple(0.9 + i / 1e4 for i in range(count)))
        held = result(scores=(base, one)), result(scores=(base, two))
        score = compared(tmp_path, *held).pairs[1].scores[0]
        assert score.drop == pytest.approx(0.07)
        assert (score.interval is not None) is paired
        assert score.lost is None

    def test_ratios_carry_both_uncertainties(self, tmp_path: Path) -> None:
        slower = (profile("baseline", "edge", 1.0), profile("int8", "edge", 1.0))
        (_, pair) = compared(tmp_path, result(), result(profiles=slower)).pairs
        (latency,) = pair.latencies
        assert latency.ratio == pytest.approx(2.0)
        assert latency.interval == pytest.approx((1 / 3, 3.0))
        assert (latency.to_baseline_one, latency.to_baseline_other) == (0.5, 1.0)

    def test_what_stands_in_one_alone_is_named(self, tmp_path: Path) -> None:
        held = result()
        renamed = replace(held.candidates[1], id="int4")
        other = replace(held, candidates=(held.candidates[0], renamed))
        found = compared(tmp_path, held, other)
        assert [pair.one for pair in found.pairs] == ["baseline"]
        assert (found.only_one, found.only_other) == (("int8",), ("int4",))

    def test_gates_of_both_are_told(self, tmp_path: Path) -> None:
        held = result()
        verdict = replace(held.verdicts[0], status=Status.NOT_MEASURED, target="edge")
        (_, pair) = compared(tmp_path, held, replace(held, verdicts=(verdict,))).pairs
        assert (pair.verdicts_one, pair.verdicts_other) == ((), ("NOT MEASURED drop on edge",))


class TestOneCandidate:
    def test_of_each(self, tmp_path: Path) -> None:
        place = written(tmp_path / "one", result())
        found = compare(f"{place}:baseline", f"{place}:int8")
        (pair,) = found.pairs
        assert (pair.one, pair.other, pair.same_file) == ("baseline", "int8", False)
        assert (pair.scores[0].lost, pair.latencies[0].ratio) == (1, 0.5)
        assert (found.only_one, found.only_other) == ((), ())

    def test_an_unknown_one_is_refused_with_the_nearest(self, tmp_path: Path) -> None:
        place = written(tmp_path / "one", result())
        with pytest.raises(RecipeError, match="unknown candidate 'int9'; did you mean 'int8'"):
            compare(f"{place}:int9", f"{place}:int8")

    def test_on_one_side_only_is_refused(self, tmp_path: Path) -> None:
        place = written(tmp_path / "one", result())
        with pytest.raises(RecipeError, match=r"names no candidate.*write .*one:CANDIDATE"):
            compare(place, f"{place}:int8")

    def test_a_missing_run_is_an_input_error(self, tmp_path: Path) -> None:
        place = written(tmp_path / "one", result())
        for wrong in (str(tmp_path / "gone"), f"{tmp_path}/gone:int8"):
            with pytest.raises(InputError, match="no such file"):
                compare(wrong, place)


class TestDifferences:
    def test_other_hardware_leaves_no_ratio(self, tmp_path: Path) -> None:
        cpu = result().environment["cpu"] | {"name": "Another CPU"}
        other = result(environment=environment(cpu=cpu))
        found = compared(tmp_path, result(), other)
        assert "measured on other hardware: latencies tell of the machines too" in found.notes
        (latency,) = found.pairs[1].latencies
        assert (latency.ratio, latency.interval) == (None, None)
        assert (latency.one, latency.to_baseline_one) == (1e-3, 0.5)

    def test_other_data_leave_no_pairing(self, tmp_path: Path) -> None:
        found = compared(tmp_path, result(), result(data_fingerprint="c" * 64))
        assert found.notes[0] == "evaluated on other data: scores are not of the same samples"
        (score,) = found.pairs[1].scores
        assert (score.interval, score.lost) == (None, None)

    def test_other_batches_leave_no_ratio(self, tmp_path: Path) -> None:
        other = tuple(replace(p, batch=8) for p in result().profiles)
        found = compared(tmp_path, result(), result(profiles=other))
        (note,) = found.notes
        assert note.startswith("measured otherwise: edge onnxruntime-cpu, batch 1, 1 threads and ")
        assert found.pairs[1].latencies[0].ratio is None

    def test_versions_that_differ_are_named(self) -> None:
        libraries = {"torch": "2.14.0", "onnx": "1.23.0", "numpy": "3"}
        other = result(environment=environment(libraries=libraries))
        assert list(differences([result(), other])) == [
            "made with other versions of libraries: torch 2.13.0 and 2.14.0, numpy none and 3"
        ]

    def test_targets_of_one_alone_are_named(self) -> None:
        found = list(differences([result(), result(("edge", "cloud"))]))
        assert found == ["not a target of every run: cloud"]

    def test_one_run_differs_from_none(self) -> None:
        assert list(differences([result()])) == []
        assert list(differences([result(environment={}), result(environment={})])) == []


def test_simulated_times_are_compared_on_any_machine_and_marked(tmp_path: Path) -> None:
    fit = Fit("tool 1", {"clock": 1}, 1e-3)
    held: dict[str, Any] = {"provenance": "simulated", "fit": fit}
    there = {"cpu": {"name": "another", "machine": "aarch64", "cores": 4, "extensions": []}}
    numbers = iter("abc")

    def of(seconds: float | None, **changes: Any) -> RunResult:
        latency = {} if seconds is None else {"p50": seconds}
        around = {} if seconds is None else {"p50": (seconds, seconds)}
        made = [
            profile(each, "edge", None, **{**held, **changes}, latency=latency, interval=around)
            for each in ("baseline", "int8")
        ]
        return result(profiles=tuple(made))

    def pair(one: RunResult, other: RunResult) -> LatencyPair:
        moved = replace(other, environment={**other.environment, **there})
        found = compared(tmp_path / next(numbers), one, moved)
        assert not any("took" in note for note in found.notes)  # no machine drifts
        (made,) = found.pairs[-1].latencies
        return made

    made = pair(of(1e-3), of(2e-3))
    assert (made.ratio, made.simulated) == (2.0, True)
    assert _times(made) == "1.00 -> 2.00 ms, simulated"
    other = pair(of(1e-3), of(2e-3, fit=replace(fit, configuration={"clock": 2})))
    assert other.ratio is None
    none = pair(of(None), of(None))
    assert (_times(none), _ratio(none)) == ("unknown", "")
