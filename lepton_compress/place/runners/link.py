"""A link in front of a server: what passes is late, and takes its time.

    python link.py --to 127.0.0.1:8080 --round-trip 0.04 --spread 0.01 --up 1e6 --down 4e6

A TCP proxy that holds back what it passes on. A round trip is drawn for each exchange, half of it
on the way up and half on the way down, gamma distributed with a mean and a standard deviation;
`up` and `down` are bits a second, which all connections share. Opening a connection costs a round
trip more. What is not imitated: packets, their loss, and TCP's slow start.

It needs Python 3.9 and no packages. The same seed draws the same delays.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import threading
from typing import Any

CHUNK = 1 << 14
_PATIENCE = 5.0
"""Seconds for connections to end."""
_LATE = 0.0005
"""Seconds that a timer of the event loop is late on average: it counts whole milliseconds."""


class Direction:
    """One way of the link, which all connections share.

    Attributes:
        passed: bytes so far.
        busy: seconds in which it was sending.
    """

    def __init__(self, bits: float) -> None:
        self.rate = bits / 8 if bits else 0.0
        self.free, self.passed, self.busy = 0.0, 0, 0.0

    def sent(self, now: float, size: int) -> float:
        """When so many more bytes have left, behind those of others."""
        self.passed += size
        taken = size / self.rate if self.rate else 0.0
        self.busy += taken
        self.free = max(self.free, now) + taken
        return self.free


class Link:
    """The proxy, in an event loop of its own thread.

    Args:
        to: host and port of the server.
        round_trip, spread: seconds, mean and standard deviation.
        up, down: bits a second; 0 is no limit.
        seed: of the delays.
        port: to listen on; 0 takes one that is free.
    """

    def __init__(
        self,
        to: tuple[str, int],
        *,
        round_trip: float = 0.0,
        spread: float = 0.0,
        up: float = 0.0,
        down: float = 0.0,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self.to, self.round_trip, self.spread = to, round_trip, spread
        self.up, self.down = Direction(up), Direction(down)
        self.port, self._random = port, random.Random(seed)  # noqa: S311 - delays, no secrets
        self._cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[Any] = set()
        self._ready = threading.Event()
        self._loop: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """Of the server, through the link."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, and take no other until `restore`."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._abort)

    def restore(self) -> None:
        """Take connections again."""
        self._cut = False

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Pass on until the end."""
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=CHUNK)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._over.wait()
            self._abort()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_PATIENCE)

    async def _connected(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.to, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, server_writer)
        self._open.update(both)
        turn = _Turn(self)
        passing = [
            asyncio.ensure_future(self._pass(reader, server_writer, self.up, turn)),
            asyncio.ensure_future(self._pass(server_reader, writer, self.down, turn)),
        ]
        # Whoever closes first ends both ways, as HTTP has no use for half a connection.
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for each in passing:
            each.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        self._open.difference_update(both)
        for end in both:
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _pass(
        self, reader: Any, writer: asyncio.StreamWriter, way: Direction, turn: _Turn
    ) -> None:
        """Read as it comes, and write when it would have arrived."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.ensure_future(self._write(writer, late))
        last = 0.0
        try:
            while chunk := await reader.read(CHUNK):
                now = self._loop.time()
                last = max(last, way.sent(now, len(chunk)) + turn.delay(way))
                late.put_nowait((last, chunk))
            late.put_nowait((last, b""))
            await writing
        except OSError:
            pass
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(self, writer: asyncio.StreamWriter, late: Any) -> None:
        while True:
            due, chunk = await late.get()
            rest = due - self._loop.time() - _LATE
            if rest > 0:
                await asyncio.sleep(rest)
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()

    def draw(self) -> float:
        """Half a round trip, in seconds. The sum of two has the mean and the deviation asked for:
        gamma distributions of one scale add up to another of it."""
        if self.spread <= 0 or self.round_trip <= 0:
            return self.round_trip / 2
        scale = self.spread**2 / self.round_trip
        return self._random.gammavariate(self.round_trip / scale / 2, scale)


class _Turn:
    """Whose turn it is in a connection: all bytes of a request have one delay, and those of the
    answer another."""

    def __init__(self, link: Link) -> None:
        self._link, self._delay, self._opening = link, 0.0, True
        self._way: Direction | None = None

    def delay(self, way: Direction) -> float:
        """Seconds on the way."""
        if way is not self._way:
            self._way, self._delay = way, self._link.draw()
            if self._opening:
                self._delay += self._link.draw() + self._link.draw()
                self._opening = False
        return self._delay


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Delay what passes to a server.")
    parser.add_argument("--to", required=True, help="HOST:PORT of the server")
    parser.add_argument("--port", type=int, default=0, help="to listen on; 0 takes a free one")
    parser.add_argument("--round-trip", type=float, default=0.0, help="seconds, the mean")
    parser.add_argument("--spread", type=float, default=0.0, help="its standard deviation")
    parser.add_argument("--up", type=float, default=0.0, help="bits a second; 0 is no limit")
    parser.add_argument("--down", type=float, default=0.0, help="bits a second; 0 is no limit")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Pass on until a signal ends it."""
    given = arguments()
    host, _, port = given.to.rpartition(":")
    if not host or not port.isdigit():
        print("--to takes HOST:PORT", file=sys.stderr)
        return 2
    link = Link(
        (host, int(port)),
        round_trip=given.round_trip,
        spread=given.spread,
        up=given.up,
        down=given.down,
        seed=given.seed,
        port=given.port,
    )
    with link:
        print(f"{link.url} leads to {given.to}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
