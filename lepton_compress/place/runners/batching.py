"""The model of a cloud, and the calls of it: requests that wait at the same time share one."""

from __future__ import annotations

import asyncio
import importlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client as prometheus

manifest: Any = importlib.import_module("manifest")  # which lies beside this file
log = logging.getLogger("cloud")

WAITED = prometheus.Histogram("lepton_wait_seconds", "From a request to the start of its call.")
COMPUTED = prometheus.Histogram("lepton_call_seconds", "Of one call of the model.")
BATCHED = prometheus.Histogram(
    "lepton_batch_samples", "Samples in one call.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
QUEUED = prometheus.Gauge("lepton_queue_requests", "Requests that wait.")


class RequestError(Exception):
    """A request that gets an error. `status` is HTTP's."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


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
        self.about = manifest.read_manifest(folder)
        held = self.about["model"]
        self.sessions = manifest.sessions(folder, held, replicas)
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
        size = sum(each.samples for each in batch)
        if len(batch) > 1 and any(not each.ndim or len(each) != size for each in made):
            raise ValueError("an output has no sample in its first axis: serve with --max-batch 1")
        BATCHED.observe(size)
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


def listed(names: Any) -> str:
    """For a person."""
    return ", ".join(sorted(names)) or "nothing"
