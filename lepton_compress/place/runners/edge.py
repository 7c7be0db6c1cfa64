"""The edge's side of a deployment: what a device does with a sample.

    from edge import Edge

    with Edge(url="http://127.0.0.1:8080") as device:
        answer = device.answer({"image": array})

    python edge.py --url http://127.0.0.1:8080 samples.npz

It stands in a folder of its own with `manifest.json` and `requirements.txt`, and needs Python 3.9.
What the manifest says decides what happens with a sample:

    edge     the model here answers
    cloud    the sample goes up
    cascade  the model here answers if it is sure enough, else the sample goes up; while the link is
             down its own answer stands, and says so
    split    the first half runs here, and what it gives goes up

`LEPTON_TOKEN` holds the secret that the cloud asks for, if it asks for one. With an https address
the certificate is verified; `ca` names a file with the authority that signed it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds for which a cascade does without the cloud after the link failed: at first, at most."""

if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.append(str(Path(__file__).resolve().parent))
manifest: Any = importlib.import_module("manifest")  # which lies beside this file
uplink: Any = importlib.import_module("uplink")  # and this one
ManifestError = manifest.ManifestError
LinkDownError, RefusedError = uplink.LinkDownError, uplink.RefusedError
log = logging.getLogger("edge")


@dataclass
class Answer:
    """What comes out for one or more samples.

    Attributes:
        outputs: by name, each (samples, ...).
        by: "edge" or "cloud".
        confidence: of a cascade, how sure the edge was: (samples,).
        degraded: why the edge's answer stands although it was not sure; empty where it was.
        sent, received: bytes of bodies.
        edge, link: seconds that the model here took, and that the cloud took with the way there
            and back.
    """

    outputs: dict[str, Any]
    by: str
    confidence: Any = None
    degraded: str = ""
    sent: int = 0
    received: int = 0
    edge: float = 0.0
    link: float = 0.0


@dataclass
class Counts:
    """What a device did so far."""

    requests: int = 0
    sent_up: int = 0
    degraded: int = 0
    failed: int = 0
    attempts: int = 0
    sent: int = 0
    received: int = 0
    lock: Any = field(default_factory=threading.Lock, repr=False)

    def add(self, **more: int) -> None:
        """Count."""
        with self.lock:
            for name, value in more.items():
                setattr(self, name, getattr(self, name) + value)

    def text(self) -> str:
        """In Prometheus' text format, for a collector that reads files."""
        lines = []
        for name, value in vars(self).items():
            if name != "lock":
                kind = f"lepton_edge_{name}_total"
                lines += [f"# TYPE {kind} counter", f"{kind} {value}"]
        return "\n".join(lines) + "\n"


class Edge:
    """A device. Calls from several threads take turns at the model and share the link.

    Args:
        folder: with the manifest; this file's by default.
        url: of the cloud, without a path.
        token: that the cloud asks for; from the environment by default.
        ca: a PEM file with the authority of the cloud's certificate.
        threshold: another one than the manifest's, of a cascade.
    """

    def __init__(
        self,
        folder: Path | None = None,
        url: str = "",
        token: str | None = None,
        ca: str | None = None,
        threshold: float | None = None,
    ) -> None:
        self.folder = folder or Path(__file__).resolve().parent
        self.about = manifest.read_manifest(self.folder)
        self.kind: str = self.about["kind"]
        self.counts = Counts()
        rule = self.about.get("confidence") or {}
        self.threshold = rule.get("threshold", 0.0) if threshold is None else threshold
        self._session: Any = None
        if "model" in self.about:
            [self._session] = manifest.sessions(self.folder, self.about["model"])
        self._busy = threading.Lock()
        self._pause, self._down_until, self._down = 0.0, 0.0, ""
        self._uplink: Any = None
        if self.kind != "edge":
            self._uplink = uplink.Uplink(
                url, self.about["link"], token, ca, lambda: self.counts.add(attempts=1)
            )

    def __enter__(self) -> Edge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        if self._uplink is not None:
            self._uplink.close()

    def answer(self, feeds: dict[str, Any]) -> Answer:
        """What comes out for the arrays of some samples, each (samples, ...).

        Raises:
            LinkDownError: the cloud is needed and gives no answer in time.
            RefusedError: the cloud does not take what was sent.
            ValueError: the arrays are not what the model takes.
        """
        self.counts.add(requests=1)
        try:
            made: Answer = getattr(self, f"_{self.kind}")(self._checked(feeds))
        except (LinkDownError, RefusedError):
            self.counts.add(failed=1)
            raise
        went_up, stood = made.by == "cloud", bool(made.degraded)
        self.counts.add(sent_up=went_up, degraded=stood, sent=made.sent, received=made.received)
        return made

    def health(self) -> dict[str, Any]:
        """Whether the model here is loaded and the cloud is reached."""
        told: dict[str, Any] = {"name": self.about["name"], "kind": self.kind}
        if self._uplink is not None:
            told["cloud"] = self._uplink.health()
        return told

    def _edge(self, feeds: dict[str, Any]) -> Answer:
        outputs, seconds = self._run(feeds)
        return Answer(outputs, "edge", edge=seconds)

    def _cloud(self, feeds: dict[str, Any]) -> Answer:
        return self._up(feeds)

    def _split(self, feeds: dict[str, Any]) -> Answer:
        halfway, seconds = self._run(feeds)
        crossing = {name: halfway[name] for name in self.about["crossing"]}
        crossing.update({name: feeds[name] for name in self.about["passed"]})
        made = self._up(crossing)
        early = {name: halfway[name] for name in self.about["early"]}
        whole = {**early, **made.outputs}
        made.outputs = {name: whole[name] for name in self.about["outputs"]}
        made.edge = seconds
        return made

    def _cascade(self, feeds: dict[str, Any]) -> Answer:
        outputs, seconds = self._run(feeds)
        sure = confidence(outputs, self.about["confidence"])
        own = Answer(outputs, "edge", sure, edge=seconds)
        if bool((sure >= self.threshold).all()):
            return own
        if time.monotonic() < self._down_until:
            own.degraded = self._down
            return own
        try:
            made = self._up(feeds)
        except LinkDownError as error:
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
            self._down_until = time.monotonic() + self._pause
            self._down = own.degraded = str(error)
            log.warning("%s; the edge's own answers stand for %.1f s", error, self._pause)
            return own
        self._pause = 0.0
        made.confidence, made.edge = sure, seconds
        return made

    def _run(self, feeds: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The outputs of the model here, and seconds of the call."""
        names = [each["name"] for each in self.about["model"]["inputs"]]
        with self._busy:
            start = time.perf_counter()
            made = self._session.run({name: feeds[name] for name in names})
            seconds = time.perf_counter() - start
        outputs = [each["name"] for each in self.about["model"]["outputs"]]
        return dict(zip(outputs, made)), seconds  # noqa: B905 - Python 3.9

    def _up(self, arrays: dict[str, Any]) -> Answer:
        start = time.perf_counter()
        outputs, sent, received = self._uplink.ask(arrays)
        link = time.perf_counter() - start
        return Answer(outputs, "cloud", sent=sent, received=received, link=link)

    def _checked(self, feeds: dict[str, Any]) -> dict[str, Any]:
        wanted = [each["name"] for each in self.about["inputs"]]
        if set(feeds) != set(wanted):
            raise ValueError(f"has {', '.join(sorted(feeds))}; the model takes {', '.join(wanted)}")
        return feeds


def confidence(outputs: dict[str, Any], rule: dict[str, Any]) -> Any:
    """The largest probability of each sample after the temperature, (samples,)."""
    scores = np.asarray(outputs[rule["output"]], dtype=np.float64)
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] == 1:  # the probability of one of two classes
        scores = np.hstack([1 - scores, scores])
    if rule["scores"] == "probabilities":
        scores = np.log(np.maximum(scores, 1e-30))
    scores = scores / rule["temperature"]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares.max(axis=1) / shares.sum(axis=1)


def samples_of(path: Path, names: list[str]) -> dict[str, Any]:
    """The inputs out of an .npz file.

    Raises:
        ValueError, OSError: it is none, or lacks one.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in names if name not in file.files]
        if missing:
            raise ValueError(f"{path} has no array {missing[0]!r}; it has {', '.join(file.files)}")
        return {name: file[name] for name in names}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Answer samples as a device does.")
    parser.add_argument("samples", nargs="?", type=Path, help="an .npz file with the inputs")
    parser.add_argument("--url", default="", help="of the cloud, as http://127.0.0.1:8080")
    parser.add_argument("--ca", help="a PEM file with the authority of its certificate")
    parser.add_argument("--first", type=int, default=10, help="answer so many samples")
    parser.add_argument("--metrics", type=Path, help="write counters into this file at the end")
    return parser.parse_args()


def main() -> int:
    """Answer samples, or without any tell whether all is well."""
    given = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with Edge(url=given.url, ca=given.ca) as device:
            if given.samples is None:
                print(json.dumps(device.health()))
                return 0
            names = [each["name"] for each in device.about["inputs"]]
            held = samples_of(given.samples, names)
            for row in range(min(given.first, len(held[names[0]]))):
                made = device.answer({name: held[name][row : row + 1] for name in names})
                print(told(row, made, device.about))
            if given.metrics:
                given.metrics.write_text(device.counts.text(), encoding="utf-8")
    except (ManifestError, LinkDownError, RefusedError, ValueError, OSError) as error:
        log.error("%s", error)
        return 2
    return 0


def told(row: int, made: Answer, about: Any) -> str:
    """A line about an answer."""
    first = next(iter(made.outputs.values()))[0]
    labels = about.get("labels") or []
    said = np.array2string(np.asarray(first).ravel()[:4], precision=4)
    if first.ndim == 1 and first.size > 1:
        best = int(first.argmax())
        said = labels[best] if best < len(labels) else str(best)
    sure = "" if made.confidence is None else f", confidence {float(made.confidence[0]):.3f}"
    stood = f" (the link is down: {made.degraded})" if made.degraded else ""
    return f"{row}: {said} by the {made.by}{sure}{stood}"


if __name__ == "__main__":
    sys.exit(main())
