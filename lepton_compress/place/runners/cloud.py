"""The cloud's side of a deployment: a model behind HTTP, for devices that send their arrays.

    python cloud.py --port 8080

It stands in a folder of its own with `manifest.json`, the model and `requirements.txt`, and needs
Python 3.9. A request is a POST to /v1/infer whose body is a safetensors file of the model's inputs,
and so is the answer: there is nothing in either that could run code. Requests that wait at the same
time are computed in one call. GET /healthz says whether it is ready, GET /metrics what it did.

It listens on this machine alone unless `--host` says otherwise. Beyond that, set LEPTON_TOKEN (a
secret that requests must bear) and `--certificate` with `--key`, or put it behind a proxy that
ends TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client as prometheus
import safetensors.numpy
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "LEPTON_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable; not an option, which every user of the machine could see."""
INFER, HEALTH, METRICS = "/v1/infer", "/healthz", "/metrics"
BINARY = "application/octet-stream"
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: opening one costs a device a round trip."""

log = logging.getLogger("cloud")

SERVED = prometheus.Counter("lepton_requests", "Requests answered.", ["status"])
WAITED = prometheus.Histogram("lepton_wait_seconds", "From a request to the start of its call.")
COMPUTED = prometheus.Histogram("lepton_call_seconds", "Of one call of the model.")
BATCHED = prometheus.Histogram(
    "lepton_batch_samples", "Samples in one call.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
RECEIVED = prometheus.Counter("lepton_received_bytes", "Bodies of requests.")
QUEUED = prometheus.Gauge("lepton_queue_requests", "Requests that wait.")


class RequestError(Exception):
    """A request that gets an error. `status` is HTTP's."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


class ManifestError(Exception):
    """What stands beside this file cannot be used."""


@dataclass
class Asked:
    """A request on its way to the model; `key` is the same of requests that fit into one call."""

    feeds: dict[str, Any]
    samples: int
    key: tuple[Any, ...]
    deadline: float
    began: float
    answer: asyncio.Future[tuple[dict[str, Any], float, int]]


class Model:
    """The artifact, loaded as many times as there are replicas."""

    def __init__(self, folder: Path, replicas: int) -> None:
        self.about = read_manifest(folder)
        held = self.about["model"]
        self.file = folder / held["file"]
        if digest(self.file) != held["sha256"]:
            raise ManifestError(f"{self.file} is another file than the manifest says")
        program = importlib.import_module(held["program"])
        self.sessions = [program.load(self.file, held["threads"]) for _ in range(replicas)]
        self.inputs, self.outputs = held["inputs"], [each["name"] for each in held["outputs"]]

    def check(self, feeds: dict[str, Any], most: int) -> int:
        """How many samples these are.

        Raises:
            RequestError: they are not what the model takes.
        """
        wanted = {each["name"]: each for each in self.inputs}
        if set(feeds) != set(wanted):
            raise RequestError(400, f"has {listed(feeds)}; the model takes {listed(wanted)}")
        counts = set()
        for name, array in feeds.items():
            shape, dtype = wanted[name]["shape"], wanted[name]["dtype"]
            fits = array.dtype.name == dtype and array.ndim == len(shape)
            if not fits or any(
                isinstance(want, int) and want != have
                for want, have in zip(shape, array.shape)  # noqa: B905 - Python 3.9
            ):
                said = f"{name} is {array.dtype}{list(array.shape)}"
                raise RequestError(400, f"{said}; the model takes {dtype}{shape}")
            counts.add(array.shape[0] if shape else 1)
        if len(counts) != 1:
            raise RequestError(400, "the inputs hold different numbers of samples")
        [count] = counts
        if not 1 <= count <= most:
            raise RequestError(400, f"holds {count} samples; a request has 1 to {most}")
        return int(count)


class Batcher:
    """Requests in the order of their arrival, those that wait together in one call.

    A free replica takes what is there at once, up to `most` samples; it waits for more only if
    `wait` says so. `depth` requests may wait, and no more.
    """

    def __init__(self, model: Model, most: int, wait: float, depth: int) -> None:
        self.model, self.most, self.wait = model, most, wait
        self.queue: asyncio.Queue[Asked] = asyncio.Queue(depth)
        self.pool = ThreadPoolExecutor(len(model.sessions))
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let every replica work."""
        for session in self.model.sessions:
            self.tasks.append(asyncio.create_task(self._work(session)))

    async def stop(self) -> None:
        """End them."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def ask(
        self, feeds: dict[str, Any], samples: int, patience: float
    ) -> tuple[dict[str, Any], float, int]:
        """The outputs, seconds of waiting, and how many samples were computed together.

        Raises:
            RequestError: too many wait already, or it took too long.
        """
        loop = asyncio.get_running_loop()
        key = tuple((name, array.shape[1:]) for name, array in sorted(feeds.items()))
        now = loop.time()
        asked = Asked(feeds, samples, key, now + patience, now, loop.create_future())
        try:
            self.queue.put_nowait(asked)
        except asyncio.QueueFull:
            raise RequestError(503, "too many requests wait") from None
        QUEUED.set(self.queue.qsize())
        try:
            return await asyncio.wait_for(asked.answer, patience)
        except TimeoutError:
            raise RequestError(504, f"gave no answer within {patience:g} s") from None

    async def _work(self, session: Any) -> None:
        loop, next_one = asyncio.get_running_loop(), None
        while True:
            first = next_one or await self.queue.get()
            batch, next_one = await self._gather(first)
            now = loop.time()
            # Whoever has gone, or gave up, needs no answer.
            batch = [each for each in batch if not each.answer.done() and each.deadline > now]
            if not batch:
                continue
            QUEUED.set(self.queue.qsize())
            try:
                made = await loop.run_in_executor(self.pool, self._call, session, batch)
            except Exception as error:  # whatever the runtime raises
                log.error("the model failed: %s", " ".join(str(error).split()))
                self._fail(batch)
                continue
            self._deliver(batch, made, now)

    async def _gather(self, first: Asked) -> tuple[list[Asked], Asked | None]:
        """What goes into one call, and the first request that does not fit into it."""
        loop = asyncio.get_running_loop()
        batch, samples, end = [first], first.samples, loop.time() + self.wait
        while samples < self.most:
            try:
                other = self.queue.get_nowait()
            except asyncio.QueueEmpty:
                left = end - loop.time()
                if left <= 0:
                    break
                try:
                    other = await asyncio.wait_for(self.queue.get(), left)
                except TimeoutError:
                    break
            if other.key != first.key or samples + other.samples > self.most:
                return batch, other
            batch.append(other)
            samples += other.samples
        return batch, None

    def _call(self, session: Any, batch: list[Asked]) -> dict[str, Any]:
        feeds = batch[0].feeds
        if len(batch) > 1:
            feeds = {name: np.concatenate([each.feeds[name] for each in batch]) for name in feeds}
        with COMPUTED.time():
            made = session.run(feeds)
        BATCHED.observe(sum(each.samples for each in batch))
        return dict(zip(self.model.outputs, made))  # noqa: B905 - Python 3.9

    @staticmethod
    def _deliver(batch: list[Asked], made: dict[str, Any], began: float) -> None:
        start, size = 0, sum(each.samples for each in batch)
        for each in batch:
            rows = slice(start, start + each.samples)
            start += each.samples
            WAITED.observe(began - each.began)
            if not each.answer.done():
                own = made if len(batch) == 1 else {name: a[rows] for name, a in made.items()}
                each.answer.set_result((own, began - each.began, size))

    @staticmethod
    def _fail(batch: list[Asked]) -> None:
        for each in batch:
            if not each.answer.done():
                each.answer.set_exception(
                    RequestError(500, "the model failed; the server's log says why")
                )


class Server:
    """The model behind HTTP."""

    def __init__(self, model: Model, given: argparse.Namespace) -> None:
        serving = model.about["serving"]
        self.model = model
        self.most = given.max_batch or serving["max_batch"]
        wait = serving["max_wait"] if given.max_wait is None else given.max_wait
        self.depth = given.queue or serving["queue"]
        self.patience, self.largest = serving["patience"], serving["max_body"]
        self.token = os.environ.get(TOKEN, "")
        self.batcher = Batcher(model, self.most, wait, self.depth)
        self.ready = False

    def app(self) -> Starlette:
        """What uvicorn serves."""

        @contextlib.asynccontextmanager
        async def living(_: Starlette) -> AsyncIterator[None]:
            self.batcher.start()
            self.ready = True
            yield
            self.ready = False
            await self.batcher.stop()

        routes = [
            Route(INFER, self.infer, methods=["POST"]),
            Route(HEALTH, self.health),
            Route(METRICS, self.metrics),
        ]
        return Starlette(routes=routes, lifespan=living)

    async def infer(self, request: Request) -> Response:
        """Arrays in, arrays out."""
        try:
            response = await self._infer(request)
        except RequestError as error:
            response = JSONResponse({"error": error.problem}, error.status)
            if error.status == 503:
                response.headers["Retry-After"] = "1"
            log.warning("%d: %s", error.status, error.problem)
        except ClientDisconnect:
            response = Response(status_code=499)
        SERVED.labels(str(response.status_code)).inc()
        return response

    async def _infer(self, request: Request) -> Response:
        self._allowed(request)
        body = await self._body(request)
        RECEIVED.inc(len(body))
        feeds = decode(body)
        samples = self.model.check(feeds, self.most)
        made, waited, together = await self.batcher.ask(feeds, samples, self.patience)
        headers = {"X-Wait-Seconds": f"{waited:.6f}", "X-Batch-Samples": str(together)}
        return Response(encode(made), media_type=BINARY, headers=headers)

    def _allowed(self, request: Request) -> None:
        if not self.token:
            return
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise RequestError(401, "needs the token, as `Authorization: Bearer TOKEN`")

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than it may be long."""
        told = request.headers.get("Content-Length", "0")
        if told.isdigit() and int(told) > self.largest:
            raise RequestError(413, f"is longer than {self.largest} bytes")
        parts = bytearray()
        async for part in request.stream():
            parts += part
            if len(parts) > self.largest:
                raise RequestError(413, f"is longer than {self.largest} bytes")
        return bytes(parts)

    async def health(self, _: Request) -> Response:
        """Whether it is ready, and for what."""
        about = self.model.about
        told = {"ready": self.ready, "name": about["name"], "sha256": about["model"]["sha256"]}
        return JSONResponse(told, 200 if self.ready else 503)

    async def metrics(self, request: Request) -> Response:
        """In Prometheus' text format."""
        try:
            self._allowed(request)
        except RequestError as error:
            return JSONResponse({"error": error.problem}, error.status)
        kind = prometheus.CONTENT_TYPE_LATEST
        return Response(prometheus.generate_latest(), headers={"Content-Type": kind})


def encode(arrays: dict[str, Any]) -> bytes:
    """As a safetensors file."""
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(safetensors.numpy.save(held))


def decode(body: bytes) -> dict[str, Any]:
    """The arrays of a safetensors file.

    Raises:
        RequestError: it is none.
    """
    try:
        return dict(safetensors.numpy.load(body))
    except Exception as error:  # of classes that differ by what is wrong with it
        said = " ".join(str(error).split())[:200]
        raise RequestError(400, f"the body is no safetensors file ({said})") from error


def listed(names: Any) -> str:
    """For a person."""
    return ", ".join(sorted(names)) or "nothing"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            total.update(part)
    return total.hexdigest()


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


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve the model beside this file over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (this machine alone)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes one that is free")
    parser.add_argument("--replicas", type=int, default=0, help="calls at the same time")
    parser.add_argument("--max-batch", type=int, default=0, help="samples in one call at most")
    parser.add_argument("--max-wait", type=float, help="seconds to wait for more samples")
    parser.add_argument("--queue", type=int, default=0, help="requests that may wait")
    parser.add_argument("--certificate", help="of TLS, a PEM file")
    parser.add_argument("--key", help="of the certificate")
    return parser.parse_args()


def main() -> int:
    """Serve until a signal ends it."""
    given = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folder = Path(__file__).resolve().parent
    try:
        about = read_manifest(folder)
        model = Model(folder, given.replicas or about["serving"]["replicas"])
        listening = socket.create_server((given.host, given.port), backlog=1024)
    except (ManifestError, OSError, ImportError) as error:
        log.error("%s", error)
        return 2
    server = Server(model, given)
    if given.host not in ("127.0.0.1", "localhost", "::1"):
        for missing, said in ((server.token, TOKEN), (given.certificate, "--certificate")):
            if not missing:
                log.warning("listens beyond this machine without %s", said)
    config = uvicorn.Config(
        server.app(),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        ssl_certfile=given.certificate,
        ssl_keyfile=given.key,
    )
    scheme = "https" if given.certificate else "http"
    port = listening.getsockname()[1]
    log.info("%s on %s://%s:%d%s", about["name"], scheme, given.host, port, INFER)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
