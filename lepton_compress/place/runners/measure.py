"""What a deployment really does: requests at random times, and what became of them.

    python measure.py samples.npz --rate 20 --requests 1000 --url http://127.0.0.1:8080

Requests arrive as a Poisson process, whether or not earlier ones are answered, and a latency runs
from the arrival to the answer, all waiting included. An arrival is when this program sends the
request off: how late it was itself is told apart, as `lateness`. The .npz file holds the inputs,
and the true classes as `labels` if there are any. With `--ping` it tells what an empty request
takes, there and back: the `round_trip` and `spread` of a fleet file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)
WARM_UP = 10
LABELS = "labels"
IN_FLIGHT = 64

log = logging.getLogger("measure")


@dataclass
class Seen:
    """A request; `problem` says why there is no answer."""

    latency: float
    sample: int
    late: float = 0.0
    by: str = ""
    right: bool = False
    degraded: bool = False
    sent: int = 0
    received: int = 0
    edge: float = 0.0
    link: float = 0.0
    problem: str = ""


class Load:
    """Requests to one device.

    Args:
        device: an `Edge`.
        samples: inputs by name, each (samples, ...), and `labels` if they are known.
        seed: of the times and of the order of the samples.
    """

    def __init__(self, device: Any, samples: dict[str, Any], seed: int = 0) -> None:
        self.device, self.seed = device, seed
        self.labels = samples.get(LABELS)
        self.inputs = {name: array for name, array in samples.items() if name != LABELS}
        self.count = len(next(iter(self.inputs.values())))

    def warm_up(self, count: int = WARM_UP) -> None:
        """Requests that do not count, one after the other and then a few at once: they load what
        is loaded on use, and open connections."""
        for row in range(count):
            self.ask(row % self.count, 0.0)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda row: self.ask(row, 0.0), range(4)))

    def run(self, rate: float, count: int) -> list[Seen]:
        """So many requests, `rate` of them a second on average; in the order of their arrival."""
        draw = random.Random(self.seed)  # noqa: S311 - times, no secrets
        rows = [draw.randrange(self.count) for _ in range(count)]
        found: list[Seen | None] = [None] * count
        due = time.perf_counter()
        rest = threading.Event()

        def work(place: int, row: int, late: float, arrival: float) -> None:
            found[place] = self.ask(row, late, arrival)

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for place, row in enumerate(rows):
                due += draw.expovariate(rate)
                left = due - time.perf_counter()
                if left > 0:
                    rest.wait(left)
                now = time.perf_counter()
                pool.submit(work, place, row, now - due, now)
        return [each for each in found if each is not None]

    def ask(self, row: int, late: float, arrival: float | None = None) -> Seen:
        """One request; `arrival` is a time of `time.perf_counter`, now by default."""
        arrival = time.perf_counter() if arrival is None else arrival
        feeds = {name: array[row : row + 1] for name, array in self.inputs.items()}
        try:
            made = self.device.answer(feeds)
        except Exception as error:  # whatever goes wrong belongs to what is measured
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Seen(time.perf_counter() - arrival, row, late, problem=said)
        return Seen(
            time.perf_counter() - arrival,
            row,
            late,
            made.by,
            self._right(made, row),
            bool(made.degraded),
            made.sent,
            made.received,
            made.edge,
            made.link,
        )

    def _right(self, made: Any, row: int) -> bool:
        if self.labels is None:
            return False
        scores = next(iter(made.outputs.values()))[0]
        return int(np.asarray(scores).argmax()) == int(self.labels[row])


def summary(seen: list[Seen], *, labelled: bool) -> dict[str, Any]:
    """Figures of requests; seconds and bytes. Percentiles are of those that were answered."""
    answered = [each for each in seen if not each.problem]
    told: dict[str, Any] = {
        "requests": len(seen),
        "answered": len(answered),
        "sent_up": sum(each.by == "cloud" for each in answered),
        "degraded": sum(each.degraded for each in answered),
        "bytes_up": sum(each.sent for each in answered),
        "bytes_down": sum(each.received for each in answered),
    }
    if answered:
        taken = np.array([each.latency for each in answered])
        # As long as nearly all waits are below it, a percentile has something beyond it.
        told["latency"] = {
            f"p{each}": float(np.percentile(taken, each))
            for each in PERCENTILES
            if len(taken) * (100 - each) >= 500
        }
        told["mean_latency"] = float(taken.mean())
        told["share_up"] = told["sent_up"] / len(answered)
        told["lateness"] = float(np.percentile([each.late for each in seen], 90))
        # Beside the model and the cloud: feeding, checking, and the hand-over to a thread.
        rest = [each.latency - each.edge - each.link for each in answered]
        told["overhead"] = float(np.median(rest))
        own = [each.edge for each in answered if each.edge]
        told["edge_seconds"] = float(np.median(own)) if own else None
        if labelled:
            told["accuracy"] = sum(each.right for each in answered) / len(answered)
    problems: dict[str, int] = {}
    for each in seen:
        if each.problem:
            problems[each.problem] = problems.get(each.problem, 0) + 1
    told["problems"] = problems
    return told


def ping(device: Any, count: int) -> dict[str, float]:
    """Mean and standard deviation of an empty request there and back, in seconds.

    Raises:
        RuntimeError: the cloud is not reached.
    """
    taken = []
    for number in range(count + 1):
        start = time.perf_counter()
        told = device.health().get("cloud")
        if not isinstance(told, dict):
            raise RuntimeError(f"the cloud does not answer: {told}")  # noqa: TRY004 - no matter of types
        if number:  # the first one opens the connection
            taken.append(time.perf_counter() - start)
    return {"round_trip": float(np.mean(taken)), "spread": float(np.std(taken))}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure this deployment from end to end.")
    parser.add_argument("samples", type=Path, help="an .npz file with the inputs, and `labels`")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--url", default="", help="of the cloud, as http://127.0.0.1:8080")
    parser.add_argument("--ca", help="a PEM file with the authority of its certificate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ping", type=int, default=0, help="only measure so many empty requests")
    return parser.parse_args()


def main() -> int:
    """Measure, and print JSON."""
    given = arguments()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    edge = importlib.import_module("edge")
    try:
        with edge.Edge(url=given.url, ca=given.ca) as device:
            if given.ping:
                print(json.dumps(ping(device, given.ping), indent=1))
                return 0
            names = [each["name"] for each in device.about["inputs"]]
            held = edge.samples_of(given.samples, names)
            with np.load(given.samples, allow_pickle=False) as file:
                if LABELS in file.files:
                    held[LABELS] = file[LABELS]
            load = Load(device, held, given.seed)
            load.warm_up()
            seen = load.run(given.rate, given.requests)
    except (edge.ManifestError, ValueError, OSError, RuntimeError) as error:
        log.error("%s", error)
        return 2
    print(json.dumps(summary(seen, labelled=LABELS in held), indent=1))
    return 0 if all(not each.problem for each in seen) else 1


if __name__ == "__main__":
    sys.exit(main())
