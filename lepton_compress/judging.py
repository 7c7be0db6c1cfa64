"""`gate`: judge a result that exists, by a budget, against an earlier result, or measured again.

No framework is imported unless latency is measured again or two results are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lepton_compress.artifacts import Artifact, Choice, Observer, RunResult, Status, Verdict
from lepton_compress.budget import BudgetFile, Gates, covers, read_budget
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.gate import judge_gates
from lepton_compress.judgements import Judgement
from lepton_compress.readings import Measured, meets, same
from lepton_compress.registry import nearest
from lepton_compress.regress import PREFIX, Pair, regressions, same_hardware
from lepton_compress.report.folder import read_result

CHOSEN = "chosen"
"""Judged where a run has found nothing to ship."""

Subject = tuple[str, Artifact]


def judge_result(
    path: Path,
    *,
    budget: Path | None = None,
    against: Path | None = None,
    measure: bool = False,
    candidates: Sequence[str] = (),
    observer: Observer,
) -> Judgement:
    """Judge what a run chose for each target.

    Args:
        path: a run folder, or its result.json.
        budget: a budget file; without one, the run's own gates as it judged them.
        against: an earlier result on the same evaluation data.
        measure: measure latency again on this machine first, with the run folder's artifacts.
        candidates: judge these, on every target, instead of what was chosen.
        observer: told of progress.

    Raises:
        InputError: a result cannot be read, or the two are of other evaluation data.
        RecipeError: the budget is wrong, or a candidate or target is not in the result.
    """
    file = read_budget(budget) if budget else BudgetFile()
    result, notes = load(path), list[str]()
    earlier = load(against) if against else None
    _check_targets(file, result)
    if earlier is not None:
        _check_comparable(result, earlier, against or Path())
    if measure:
        from lepton_compress.remeasure import remeasure

        result = remeasure(result, file.budget, observer)
    subjects = _subjects(result, candidates)
    verdicts = [_nothing(choice.target, choice.reason) for choice in _unchosen(result, candidates)]
    if budget is not None or measure:
        verdicts += _by_gates(file.budget, result, subjects)
    elif against is None:
        verdicts += _as_judged(result, subjects, named=bool(candidates))
    if earlier is not None:
        if not same_hardware(result, earlier):
            notes.append("measured on other hardware: of latencies only ratios are compared")
        pairs = list(_pairs(subjects, earlier, named=bool(candidates)))
        verdicts += regressions(pairs, result, earlier, file.budget.regression)
    return Judgement(
        result=str(path),
        recipe=result.recipe,
        started=result.started,
        passed=bool(verdicts) and all(each.status is Status.PASS for each in verdicts),
        verdicts=tuple(verdicts),
        budget=str(budget or ""),
        against=str(against or ""),
        measured_again=measure,
        notes=tuple(notes),
        places=_places(file, verdicts),
    )


def load(path: Path) -> RunResult:
    """A result that was written by a run.

    Raises:
        InputError: as `read_result`.
    """
    return read_result(path)


def _check_targets(file: BudgetFile, result: RunResult) -> None:
    known = [choice.target for choice in result.chosen]
    for name, gate in file.budget.items():
        for target in gate.targets:
            if not any(covers(target, each) for each in known):
                where = file.where(name, "targets")
                mend = nearest(target, known)
                raise RecipeError(f"the result has no target {target!r}", where=where, mend=mend)


def _check_comparable(now: RunResult, then: RunResult, where: Path) -> None:
    if now.data_fingerprint != then.data_fingerprint:
        raise InputError(
            "was evaluated on other data, so that accuracies cannot be compared",
            where=str(where),
            mend="run its recipe again on the data of today",
        )


def _subjects(result: RunResult, candidates: Sequence[str]) -> list[Subject]:
    """What is judged, with the target that it is judged for."""
    if not candidates:
        return [
            (choice.target, result.artifact(choice.candidate, choice.format or "onnx"))
            for choice in result.chosen
            if choice.candidate is not None
        ]
    known = list(dict.fromkeys(artifact.candidate for artifact in result.artifacts))
    for name in candidates:
        if name not in known:
            mend = nearest(name, known)
            raise RecipeError(f"the result has no candidate {name!r}", where="gate", mend=mend)
    return [
        (choice.target, artifact)
        for name in candidates
        for artifact in result.artifacts
        if artifact.candidate == name
        for choice in result.chosen
        if meets(result.profiles, artifact, choice.target)
    ]


def _unchosen(result: RunResult, candidates: Sequence[str]) -> Iterator[Choice]:
    if not candidates:
        yield from (choice for choice in result.chosen if choice.candidate is None)


def _nothing(target: str, reason: str) -> Verdict:
    nothing = float("nan")
    return Verdict("", "", target, CHOSEN, Status.FAIL, None, None, nothing, False, reason)


def _by_gates(gates: Gates, result: RunResult, subjects: Sequence[Subject]) -> list[Verdict]:
    judged = list({id(artifact): artifact for _, artifact in subjects}.values())
    base = [each for each in result.artifacts if each.candidate == result.baseline]
    measured = Measured(
        baseline=result.baseline,
        artifacts=[*judged, *(each for each in base if each not in judged)],
        parities=result.parities,
        scores=result.scores,
        profiles=result.profiles,
        behaviours=result.behaviours,
        coverages=result.coverages,
    )
    metric = result.scores[0].metric if result.scores else "a metric"
    targets = [choice.target for choice in result.chosen]
    made = judge_gates(gates, measured, metric=metric, targets=targets)
    return _about(made, subjects)


def _as_judged(result: RunResult, subjects: Sequence[Subject], *, named: bool) -> list[Verdict]:
    """The run's own verdicts; if it failed by others than those asked for, these too."""
    about = _about(result.verdicts, subjects)
    if named or result.passed or any(each.status is not Status.PASS for each in about):
        return about
    return about + [each for each in result.verdicts if each.status is not Status.PASS]


def _about(verdicts: Sequence[Verdict], subjects: Sequence[Subject]) -> list[Verdict]:
    """Of those verdicts the ones on what is judged, each once."""
    return [
        verdict
        for verdict in verdicts
        if any(
            same(verdict, artifact) and verdict.target in (None, target)
            for target, artifact in subjects
        )
    ]


def _pairs(subjects: Sequence[Subject], earlier: RunResult, *, named: bool) -> Iterator[Pair]:
    """What shipped for a target then and now; of candidates asked for, those of one name."""
    for target, now in subjects:
        choice = next((each for each in earlier.chosen if each.target == target), None)
        wanted = (now.candidate, now.format)
        if not named and choice is not None and choice.candidate is not None:
            wanted = (choice.candidate, choice.format or now.format)
        held = (a for a in earlier.artifacts if (a.candidate, a.format) == wanted)
        yield Pair(target, now, next(held, None))


def _places(file: BudgetFile, verdicts: Sequence[Verdict]) -> dict[str, tuple[str, int]]:
    """Where the budget sets the gates that were judged."""
    found = {}
    for name in dict.fromkeys(each.gate for each in verdicts):
        inside = name.removeprefix(PREFIX)
        key = ("regression", inside) if inside != name else (name,)
        place = file.place(*key)
        if place is not None:
            found[name] = place
    return found
