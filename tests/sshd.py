"""A real OpenSSH server on the loopback, run by the user who runs the tests, and its parts.

It has a host key, an authorised key and a configuration of its own; nobody's `~/.ssh` is touched.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
SSHD = shutil.which("sshd", path=PLACES)
MISSING = next(
    (f"there is no {n}" for n in ("sshd", "ssh") if not shutil.which(n, path=PLACES)), ""
)

SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={folder}/remote
"""
CLIENT = """\
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
IdentityAgent none
"""


@dataclass
class Server:
    """A server that listens, unless it was killed."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def target(self) -> dict[str, Any]:
        """The keys of a target that is measured there."""
        return {
            "name": "device",
            "runtime": "onnxruntime-cpu",
            "host": f"{getpass.getuser()}@127.0.0.1",
            "port": self.port,
            "identity": str(self.folder / "user"),
            "ssh_config": str(self.folder / "config"),
            "python": str(self.folder / "python"),
        }

    @property
    def left(self) -> list[Path]:
        """What stands in the temporary folder there."""
        return sorted((self.folder / "remote").iterdir())

    def emptied(self) -> bool:
        """Whether nothing is left there; waits a little for what is just ending."""
        end = time.monotonic() + 10
        while self.left and time.monotonic() < end:
            time.sleep(0.02)
        return not self.left

    def cut(self) -> None:
        """Break every connection; the server goes on listening."""
        for each in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def kill(self) -> None:
        """End the server with every connection."""
        children = psutil.Process(self.process.pid).children(recursive=False)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for each in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path, python: str) -> Iterator[Server]:
    """A server for as long as the block lasts.

    Args:
        folder: an empty one for all its files.
        python: a shell's text that runs an interpreter which has the runtime.
    """
    assert SSHD is not None
    port = free_port()
    (folder / "remote").mkdir()
    for name in ("host", "user"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    (folder / "server").write_text(SERVER.format(folder=folder, port=port))
    (folder / "config").write_text(CLIENT.format(folder=folder))
    key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "python").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (folder / "python").chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what it separates its privileges in
    log = folder / "log"
    process = subprocess.Popen([SSHD, "-D", "-f", str(folder / "server"), "-E", str(log)])
    server = Server(folder, port, process)
    try:
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.02)
        yield server
    finally:
        if process.poll() is None:
            server.kill()
