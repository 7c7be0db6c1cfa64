"""The way up to the cloud: attempts until there is an answer or the time is over."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from typing import Any

import numpy as np

TOKEN = "LEPTON_TOKEN"  # noqa: S105 - the name of a variable
INFER, HEALTH = "/v1/infer", "/healthz"
BINARY = "application/octet-stream"
AGAIN = (429, 502, 503, 504)
"""HTTP's statuses after which another attempt may do better."""
LARGEST_ANSWER = 1 << 26

log = logging.getLogger("edge")


class LinkDownError(Exception):
    """The cloud gave no answer in time."""


class RefusedError(Exception):
    """The cloud does not take what was sent; sending it again would not help."""


class Uplink:
    """Requests to a cloud. Several threads may use it at the same time.

    Args:
        url: of the cloud, without a path.
        about: the manifest's `link`: `timeout` and `backoff` in seconds, `retries`.
        token: that the cloud asks for; from the environment by default.
        ca: a PEM file with the authority of the cloud's certificate.
        counted: is called before each attempt.

    Raises:
        ValueError: the address is none.
    """

    def __init__(
        self, url: str, about: Any, token: str | None, ca: str | None, counted: Any
    ) -> None:
        import urllib3

        if not url.startswith(("http://", "https://")):
            raise ValueError("the address of the cloud is missing; give it as --url")
        self._url, self._about, self._counted = url.rstrip("/"), about, counted
        self._token = os.environ.get(TOKEN, "") if token is None else token
        if self._token and url.startswith("http://") and not _is_here(url):
            log.warning("the token goes to another machine unencrypted; use https")
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=64, block=False, ca_certs=ca, cert_reqs="CERT_REQUIRED"
        )

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()

    def health(self) -> Any:
        """What the cloud says of itself, or why it does not."""
        try:
            got = self._pool.request("GET", self._url + HEALTH, timeout=2.0, retries=False)
            return json.loads(got.data) if got.status == 200 else got.status
        except Exception as error:  # of urllib3, or of what is no JSON
            return f"not reached: {plain(error)}"

    def ask(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        """The cloud's outputs for some arrays, and the bytes of both bodies.

        Raises:
            LinkDownError: no answer came in time, whatever was tried.
            RefusedError: the cloud does not take them.
        """
        from safetensors.numpy import load, save

        body = bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
        data = self._post(body, time.monotonic() + self._about["timeout"])
        return dict(load(data)), len(body), len(data)

    def _post(self, body: bytes, deadline: float) -> bytes:
        """Try until there is an answer, the attempts are used up or the time is over."""
        tried, pause, said = 0, float(self._about["backoff"]), "no time was left"
        while tried <= self._about["retries"]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            tried += 1
            self._counted()
            status, data, said = self._attempt(body, left)
            if status == 200:
                return data
            if status and status not in AGAIN:
                raise RefusedError(said)
            # Half of it by chance, so that devices that failed together do not return together.
            rest = min(pause * random.uniform(0.5, 1.0), deadline - time.monotonic())  # noqa: S311
            if tried <= self._about["retries"] and rest > 0:
                time.sleep(rest)
            pause *= 2
        raise LinkDownError(
            f"no answer from {self._url or 'the cloud'} in {tried} attempts: {said}"
        )

    def _attempt(self, body: bytes, left: float) -> tuple[int, bytes, str]:
        """Status (0 without any), body and problem of one request."""
        import urllib3

        headers = {"Content-Type": BINARY}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            got = self._pool.request(
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
