"""What pruning costs, told apart from what training gives: every pruned variant that is trained
after it stands beside its control, the unpruned model with the same training.

A control is evaluated on the same samples and nothing more: it has no gates, is not profiled, ships
no artifact and is never chosen. It is a path of the same tree of steps, so that what it shares with
variants is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lepton_compress import branches, evaluate, registry
from lepton_compress.artifacts import Control, Score
from lepton_compress.branches import Node
from lepton_compress.job import Job


def plan(job: Job) -> dict[str, Node]:
    """Variant to the node of its control: its steps up to the last one that trains, without those
    that prune. Variants without pruning, or without training behind it, have none."""
    if not job.recipe.control:
        return {}
    found = {}
    for variant, steps in job.recipe.variants.items():
        plugins = [registry.get("step", step.name) for step in steps]
        first = next((index for index, each in enumerate(plugins) if each.prunes), len(steps))
        last = max((index for index, each in enumerate(plugins) if each.trains), default=-1)
        if first < last:
            kept = [(i, steps[i]) for i in range(last + 1) if not plugins[i].prunes]
            found[variant] = branches.reached(job, variant, kept)
    return found


def compare(
    job: Job,
    planned: Mapping[str, Node],
    scores: Sequence[Score],
    score: Callable[[str, Node], list[Score]],
) -> tuple[Control, ...]:
    """Each variant's scores beside its control's, paired by sample.

    Args:
        planned: candidate to its node; one that is a control itself is not made again.
        scores: of the candidates.
        score: makes a node's artifacts and gives their scores, under a name.
    """
    held: dict[str, list[Score]] = {}
    found = []
    for variant, node in plan(job).items():
        twin = next((name for name, each in planned.items() if each.key == node.key), "")
        if node.key not in held:
            made = [each for each in scores if each.candidate == twin]
            held[node.key] = made if twin else score(f"control of {variant}", node)
        steps = tuple(each.label for each in node.path() if each.step is not None)
        for one in (each for each in scores if each.candidate == variant):
            for other in held[node.key]:
                if (other.format, other.metric) == (one.format, one.metric):
                    drop, interval = evaluate.drop_of(other, one)
                    found.append(
                        Control(
                            candidate=variant,
                            format=one.format,
                            metric=one.metric,
                            steps=steps,
                            variant=twin,
                            value=other.value,
                            interval=other.interval,
                            drop=drop,
                            drop_interval=interval,
                        )
                    )
    return tuple(found)
