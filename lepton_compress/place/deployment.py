"""What of a plan can be tried on one machine: the artifacts of both sides, and how they talk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lepton_compress.errors import InputError
from lepton_compress.placements import Kind


@dataclass(frozen=True)
class Part:
    """An artifact on one side.

    Attributes:
        path: of its file.
        runtime: that loads it, one that a device can run without this package.
        threads: of a call.
        beside: files that travel with it.
    """

    path: Path
    runtime: str = "onnxruntime-cpu"
    threads: int = 1
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Rule:
    """When the edge of a cascade is sure enough.

    Attributes:
        threshold: the least confidence with which its answer stands.
        temperature: that its logits are divided by before the softmax.
        output: the name of its class scores; its first output by default.
        scores: what these are.
    """

    threshold: float
    temperature: float = 1.0
    output: str = ""
    scores: Literal["logits", "probabilities"] = "logits"


@dataclass(frozen=True)
class Deployment:
    """A plan for one workload, as it is written for its sites.

    Attributes:
        edge: what runs on the device; None of a plan of kind "cloud".
        cloud: what is served; None of a plan of kind "edge".
        rule: of a cascade.
        inputs, outputs, crossing, passed, early: of a split, as `cuts.Halves` has them.
        stacks: whether the cloud's artifact takes several samples in one call.
        labels: names of the classes.
        replicas: calls that the cloud runs at the same time.
        max_batch: samples in one call at most.
        max_wait: seconds that a free replica waits for more samples.
        queue: requests that may wait in the cloud; more are refused.
        timeout: seconds from the first attempt to the last answer that is waited for.
        retries: attempts after the first.
        backoff: seconds before the second attempt; doubled each time.
        max_body: bytes of a request at most.
    """

    kind: Kind
    name: str
    edge: Part | None = None
    cloud: Part | None = None
    rule: Rule | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    crossing: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    stacks: bool = True
    labels: tuple[str, ...] = ()
    replicas: int = 1
    max_batch: int = 8
    max_wait: float = 0.0
    queue: int = 64
    timeout: float = 5.0
    retries: int = 2
    backoff: float = 0.05
    max_body: int = 1 << 24

    def check(self) -> None:
        """Find out whether all parts are there.

        Raises:
            InputError: one is missing, or one too many is given.
        """
        wanted = {
            "edge": ({"edge"}, "an artifact for the edge"),
            "cloud": ({"cloud"}, "an artifact for the cloud"),
            "cascade": ({"edge", "cloud", "rule"}, "an artifact for each side and a threshold"),
            "split": ({"edge", "cloud", "crossing"}, "both halves and what crosses"),
        }
        needed, said = wanted[self.kind]
        parts = ("edge", "cloud", "rule", "crossing")
        given = {name for name in parts if getattr(self, name)}
        if given != needed:
            raise InputError(f"a deployment of kind {self.kind} has {said}", where=self.name)
