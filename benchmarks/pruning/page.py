"""The results as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PEER = "torch-pruning"


def page(found: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    return "\n".join([*_head(found), *_against(found), *_small(found)]) + "\n"


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    environment, training = found["environment"], found["training"]
    libraries = environment["libraries"]
    yield "# Pruning, against torch-pruning's recipe"
    yield ""
    yield (
        f"`LEPTON_DATA=... python -m benchmarks.pruning` on {environment['cpu']['name']}: "
        f"torch {libraries['torch']}, torch-pruning {found['peer']}, ONNX Runtime "
        f"{libraries['onnxruntime']}, one thread, batch 1, float. The peer removes a share of each "
        "layer's channels by its README's recipe; `prune: {to: {latency: ...}}` is asked for the "
        "time that the peer's net was measured at (the median of three sessions). Both then "
        "get the same "
        f"`finetune` ({training['epochs']} epochs of {found['samples']} samples in batches of "
        f"{training['batch_size']}) with {found['seeds']} "
        f"seed{'s' if found['seeds'] > 1 else ''}, which draw the samples too. `of original` and "
        "`of peer` are "
        "medians of the same rounds, each artifact in a process of its own. `gain`: accuracy "
        "beside the peer's of the same seed, with its 95 % interval over seeds and evaluation "
        "samples."
    )


def _against(found: Mapping[str, Any]) -> Iterator[str]:
    for name, cells in found["models"].items():
        yield from ("", f"## {name}", "")
        first = next(iter(cells.values()))["original"]
        yield (
            f"The original: {100 * first['accuracy']:.2f} %, "
            f"{1e6 * first['seconds']:.1f} us, {first['bytes'] / 1000:.1f} kB."
        )
        yield ""
        yield (
            "| peer's ratio | net | accuracy % | gain | from | to | of original | of peer | "
            "from | to |"
        )
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for ratio, held in cells.items():
            ways = {PEER: held["ways"][PEER], **held["ways"]}
            for way, each in ways.items():
                yield _line([ratio, way, *_cells(way, each, held["original"])])
    yield from ("", "## On average", "")
    yield from summary(found)


def _cells(way: str, each: Mapping[str, Any], original: Mapping[str, Any]) -> list[str]:
    if "refused" in each:
        return [each["refused"], *[""] * 7]
    values = [100 * value for value in each["accuracy"]]
    share = each["seconds"] / original["seconds"]
    told = [f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})"]
    if way == PEER:
        return [*told, "", "", "", f"{share:.3f}x", "", "", ""]
    told += [f"{100 * value:+.2f}" for value in (each["gain"], *each["interval"])]
    beside = [each["latency"], *each["latency_interval"]]
    return [*told, f"{share:.3f}x", *(f"{value:.3f}x" for value in beside)]


def summary(found: Mapping[str, Any]) -> Iterator[str]:
    """What all cells say together, by way."""
    cells = [each for held in found["models"].values() for each in held.values()]
    ways = dict.fromkeys(way for each in cells for way in each["ways"] if way != PEER)
    yield "| net | cells | at least as accurate | mean gain | least gain | mean of peer's time |"
    yield "|---|---|---|---|---|---|"
    for way in ways:
        held = [each["ways"][way] for each in cells if "gain" in each["ways"].get(way, {})]
        if not held:
            continue
        gains = [100 * each["gain"] for each in held]
        times = [each["latency"] for each in held]
        yield _line(
            [
                way,
                str(len(held)),
                str(sum(each >= 0 for each in gains)),
                f"{sum(gains) / len(gains):+.2f}",
                f"{min(gains):+.2f}",
                f"{sum(times) / len(times):.3f}x",
            ]
        )


def _small(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["small"]:
        return
    about = found["small_by"]
    training = about["training"]
    budget = ", ".join(f"{name}: {value}" for name, value in about["budget"].items())
    yield from ("", "## Pruned, distilled and in int8, against float", "")
    yield (
        f"`prune: {{to: {{{budget}}}}}`, `distil` ({training['epochs']} epochs of up to "
        f"{about['samples']} samples), `quantize`. Size is the ONNX file's."
    )
    yield ""
    yield (
        "| model | float % | int8 % | gain | from | to | times faster | from | to | times smaller |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, held in found["small"].items():
        original, each = held["original"], held["small"]
        values = [100 * value for value in each["accuracy"]]
        low, high = each["latency_interval"]
        yield _line(
            [
                name,
                f"{100 * original['accuracy']:.2f}",
                f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})",
                *(f"{100 * value:+.2f}" for value in (each["gain"], *each["interval"])),
                *(f"{1 / value:.2f}" for value in (each["latency"], high, low)),
                f"{original['bytes'] / each['bytes']:.2f}",
            ]
        )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
