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
import hashlib
import importlib
import json
import logging
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TOKEN = "LEPTON_TOKEN"  # noqa: S105 - the name of a variable
INFER, HEALTH = "/v1/infer", "/healthz"
BINARY = "application/octet-stream"
AGAIN = (429, 502, 503, 504)
"""HTTP's statuses after which another attempt may do better."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds for which a cascade does without the cloud after the link failed: at first, at most."""
LARGEST_ANSWER = 1 << 26

log = logging.getLogger("edge")


class LinkDownError(Exception):
    """The cloud gave no answer in time."""


class RefusedError(Exception):
    """The cloud does not take what was sent; sending it again would not help."""


class ManifestError(Exception):
    """What stands beside this file cannot be used."""


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
        self.about = read_manifest(self.folder)
        self.kind: str = self.about["kind"]
        self.counts = Counts()
        rule = self.about.get("confidence") or {}
        self.threshold = rule.get("threshold", 0.0) if threshold is None else threshold
        self._session: Any = self._load() if "model" in self.about else None
        self._busy = threading.Lock()
        self._link = self.about.get("link") or {}
        self._url, self._pool = url.rstrip("/"), None
        self._pause, self._down_until, self._down = 0.0, 0.0, ""
        if self.kind != "edge":
            self._pool = self._connect(token, ca)

    def __enter__(self) -> Edge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        if self._pool is not None:
            self._pool.clear()

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
        if self._pool is not None:
            try:
                got = self._pool.request("GET", self._url + HEALTH, timeout=2.0, retries=False)
                told["cloud"] = json.loads(got.data) if got.status == 200 else got.status
            except Exception as error:  # of urllib3, or of what is no JSON
                told["cloud"] = f"not reached: {plain(error)}"
        return told

    def _edge(self, feeds: dict[str, Any]) -> Answer:
        outputs, seconds = self._run(feeds)
        return Answer(outputs, "edge", edge=seconds)

    def _cloud(self, feeds: dict[str, Any]) -> Answer:
        return self._ask(feeds)

    def _split(self, feeds: dict[str, Any]) -> Answer:
        halfway, seconds = self._run(feeds)
        crossing = {name: halfway[name] for name in self.about["crossing"]}
        crossing.update({name: feeds[name] for name in self.about["passed"]})
        made = self._ask(crossing)
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
            made = self._ask(feeds)
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

    def _ask(self, arrays: dict[str, Any]) -> Answer:
        """Send arrays up.

        Raises:
            LinkDownError: no answer came in time, whatever was tried.
            RefusedError: the cloud does not take them.
        """
        from safetensors.numpy import load, save

        body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        start = time.perf_counter()
        data = self._post(bytes(body), time.monotonic() + self._link["timeout"])
        outputs = dict(load(data))
        link = time.perf_counter() - start
        return Answer(outputs, "cloud", sent=len(body), received=len(data), link=link)

    def _post(self, body: bytes, deadline: float) -> bytes:
        """Try until there is an answer, the attempts are used up or the time is over."""
        tried, pause, said = 0, float(self._link["backoff"]), "no time was left"
        while tried <= self._link["retries"]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            tried += 1
            self.counts.add(attempts=1)
            status, data, said = self._attempt(body, left)
            if status == 200:
                return data
            if status and status not in AGAIN:
                raise RefusedError(said)
            # Half of it by chance, so that devices that failed together do not return together.
            rest = min(pause * random.uniform(0.5, 1.0), deadline - time.monotonic())  # noqa: S311
            if tried <= self._link["retries"] and rest > 0:
                time.sleep(rest)
            pause *= 2
        raise LinkDownError(
            f"no answer from {self._url or 'the cloud'} in {tried} attempts: {said}"
        )

    def _attempt(self, body: bytes, left: float) -> tuple[int, bytes, str]:
        """Status (0 without any), body and problem of one request."""
        import urllib3

        pool: Any = self._pool
        headers = {"Content-Type": BINARY}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            got = pool.request(
                "POST",
                self._url + INFER,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=left, read=left),
                retries=False,
                preload_content=False,
            )
            data = got.read(LARGEST_ANSWER + 1)
            got.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return 0, b"", plain(error)
        if len(data) > LARGEST_ANSWER:
            return 500, b"", "the answer is too long"
        if got.status == 200:
            return 200, data, ""
        try:
            said = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            said = "no reason given"
        return int(got.status), b"", f"{got.status}: {said}"

    def _connect(self, token: str | None, ca: str | None) -> Any:
        import urllib3

        if not self._url.startswith(("http://", "https://")):
            raise ManifestError("the address of the cloud is missing; give it as --url")
        self._token = os.environ.get(TOKEN, "") if token is None else token
        if self._token and self._url.startswith("http://") and not _is_here(self._url):
            log.warning("the token goes to another machine unencrypted; use https")
        return urllib3.PoolManager(
            num_pools=2, maxsize=64, block=False, ca_certs=ca, cert_reqs="CERT_REQUIRED"
        )

    def _checked(self, feeds: dict[str, Any]) -> dict[str, Any]:
        wanted = [each["name"] for each in self.about["inputs"]]
        if set(feeds) != set(wanted):
            raise ValueError(f"has {', '.join(sorted(feeds))}; the model takes {', '.join(wanted)}")
        return feeds

    def _load(self) -> Any:
        held = self.about["model"]
        file = self.folder / held["file"]
        if hashlib.sha256(file.read_bytes()).hexdigest() != held["sha256"]:
            raise ManifestError(f"{file} is another file than the manifest says")
        if str(self.folder) not in sys.path:  # what loads the model lies beside it
            sys.path.append(str(self.folder))
        return importlib.import_module(held["program"]).load(file, held["threads"])


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


def plain(error: BaseException) -> str:
    """The gist of an error of the network."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    said = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {said}" if said else type(cause).__name__


def _is_here(url: str) -> bool:
    host = url.split("//", 1)[1].rsplit(":", 1)[0].split("/", 1)[0]
    return host in ("127.0.0.1", "localhost", "[::1]")


def read_manifest(folder: Path) -> Any:
    """What stands beside this file.

    Raises:
        ManifestError: it is missing, damaged or of a later version.
    """
    path = folder / "manifest.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    if about.get("version") != 1:
        raise ManifestError(f"{path} is of a version that this program does not know")
    return about


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
