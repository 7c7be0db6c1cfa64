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
import hmac
import importlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
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

batching: Any = importlib.import_module("batching")  # which lies beside this file
log = logging.getLogger("cloud")

SERVED = prometheus.Counter("lepton_requests", "Requests answered.", ["status"])
RECEIVED = prometheus.Counter("lepton_received_bytes", "Bodies of requests.")


class Server:
    """The model behind HTTP."""

    def __init__(self, model: Any, given: argparse.Namespace) -> None:
        serving = model.about["serving"]
        self.model = model
        self.most = given.max_batch or serving["max_batch"]
        wait = serving["max_wait"] if given.max_wait is None else given.max_wait
        self.depth = given.queue or serving["queue"]
        self.patience, self.largest = serving["patience"], serving["max_body"]
        self.token = os.environ.get(TOKEN, "")
        self.batcher = batching.Batcher(model, self.most, wait, self.depth)
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
        except batching.RequestError as error:
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
        try:
            # Who sends a byte now and then must not hold a connection for ever.
            body = await asyncio.wait_for(self._body(request), self.patience)
        except TimeoutError:
            raise batching.RequestError(408, "the body did not come in time") from None
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
            raise batching.RequestError(401, "needs the token, as `Authorization: Bearer TOKEN`")

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than it may be long."""
        told = request.headers.get("Content-Length", "0")
        if told.isdigit() and int(told) > self.largest:
            raise batching.RequestError(413, f"is longer than {self.largest} bytes")
        parts = bytearray()
        async for part in request.stream():
            parts += part
            if len(parts) > self.largest:
                raise batching.RequestError(413, f"is longer than {self.largest} bytes")
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
        except batching.RequestError as error:
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
        batching.RequestError: it is none.
    """
    try:
        return dict(safetensors.numpy.load(body))
    except Exception as error:  # of classes that differ by what is wrong with it
        said = " ".join(str(error).split())[:200]
        raise batching.RequestError(400, f"the body is no safetensors file ({said})") from error


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
        about = batching.manifest.read_manifest(folder)
        model = batching.Model(folder, given.replicas or about["serving"]["replicas"])
        listening = socket.create_server((given.host, given.port), backlog=1024)
    except (batching.manifest.ManifestError, OSError, ImportError) as error:
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
