"""The shaped link: how late and how fast it is, by its own clock and by what really passes."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lepton_compress.place.runners.link import Direction, Link


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that gives back what it gets."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def exchange(connection: socket.socket, data: bytes) -> float:
    """Seconds until all of it is back."""
    start = time.perf_counter()
    connection.sendall(data)
    left = len(data)
    while left:
        got = connection.recv(1 << 16)
        if not got:
            raise ConnectionResetError("closed, not reset")
        left -= len(got)
    return time.perf_counter() - start


def test_delays_have_the_mean_and_the_deviation_asked_for() -> None:
    link = Link(("127.0.0.1", 1), round_trip=0.04, spread=0.01, seed=3)
    drawn = np.array([link.draw() + link.draw() for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(0.04, rel=0.01)
    assert drawn.std() == pytest.approx(0.01, rel=0.03)
    assert drawn.min() > 0
    again = Link(("127.0.0.1", 1), round_trip=0.04, spread=0.01, seed=3)
    assert [again.draw() + again.draw() for _ in range(4)] == list(drawn[:4])


def test_bytes_leave_one_after_the_other() -> None:
    way = Direction(8000.0)  # a kilobyte a second
    assert way.sent(10.0, 500) == pytest.approx(10.5)
    assert way.sent(10.1, 500) == pytest.approx(11.0)  # behind those of before
    assert way.sent(20.0, 100) == pytest.approx(20.1)  # idle in between
    assert way.passed == 1100
    assert way.busy == pytest.approx(1.1)
    assert Direction(0).sent(5.0, 10**9) == 5.0


def test_what_passes_is_late_and_whole(echo: int) -> None:
    data = random.Random(0).randbytes(50_000)
    with (
        Link(("127.0.0.1", echo), round_trip=0.06, up=4e6, down=4e6) as link,
        socket.create_connection(("127.0.0.1", link.port)) as connection,
    ):
        opening = exchange(connection, b"x")
        assert opening >= 0.115  # a round trip more to open
        assert exchange(connection, b"x") >= 0.055
        start, got = time.perf_counter(), b""
        connection.sendall(data)
        while len(got) < len(data):
            got += connection.recv(1 << 16)
        taken = time.perf_counter() - start
    assert got == data
    # A round trip, and the time on each way, of which they share most.
    assert taken >= 0.055 + 0.1
    assert link.up.passed == link.down.passed == len(data) + 2


def test_a_cut_link_breaks_what_is_open_and_refuses_more(echo: int) -> None:
    with Link(("127.0.0.1", echo)) as link:
        with socket.create_connection(("127.0.0.1", link.port)) as connection:
            connection.settimeout(10)
            exchange(connection, b"x")
            link.cut()
            with pytest.raises(OSError, match=r"reset|pipe"):
                exchange(connection, b"x")
        with socket.create_connection(("127.0.0.1", link.port)) as connection:
            connection.settimeout(10)
            with pytest.raises(OSError, match=r"reset|pipe"):
                assert not exchange(connection, b"x")
        link.restore()
        with socket.create_connection(("127.0.0.1", link.port)) as connection:
            assert exchange(connection, b"x") < 10
