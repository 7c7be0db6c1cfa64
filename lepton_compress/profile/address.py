"""How to reach a device, what it is, and why it was not reached.

Source of the options: ssh_config(5), OpenSSH 9.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_compress.errors import DeviceError
from lepton_compress.provenance import describe_cpu

OPTIONS = {
    "BatchMode": "yes",
    "ClearAllForwardings": "yes",
    "ConnectTimeout": "10",
    "ControlMaster": "no",
    "LogLevel": "ERROR",
    "RemoteCommand": "none",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
}
"""A connection of the user's own that may be shared is used, but none is left behind."""

_MENDS = (
    ("permission denied", "it refuses the login", "check user, `identity` and its authorized_keys"),
    ("could not resolve", "no such host", "check `host`"),
    ("connection refused", "it refuses the connection", "check `host` and `port`, and its sshd"),
    ("timed out", "it does not answer", "check `host`, and that it is on and reachable"),
    ("no route to host", "it cannot be reached", "check `host` and the network"),
    ("network is unreachable", "it cannot be reached", "check `host` and the network"),
    ("no such identity", "the identity file does not exist", "check `identity`"),
    ("bad configuration option", "ssh's configuration is wrong", "check it by `ssh -G`"),
    ("can't open user config file", "there is no such configuration", "check `ssh_config`"),
)


@dataclass(frozen=True)
class Address:
    """How to reach a device.

    Attributes:
        host: as the `ssh` command takes it; an alias of the user's configuration too.
        port: None leaves it to the configuration.
        identity: a private key's file.
        config: a configuration to use instead of the user's.
        python: the interpreter there; `~/` is its home there.
        directory: where to make the private folder; empty for its temporary one.
    """

    host: str
    port: int | None = None
    identity: Path | None = None
    config: Path | None = None
    python: str = "python3"
    directory: str = ""

    def command(self, remote: str) -> list[str]:
        """That runs a line of shell there."""
        options = [f"-o{name}={value}" for name, value in OPTIONS.items()]
        if self.config is not None:
            options += ["-F", str(self.config)]
        if self.port is not None:
            options += ["-p", str(self.port)]
        if self.identity is not None:
            options += ["-oIdentitiesOnly=yes", "-i", str(self.identity)]
        return ["ssh", "-T", *options, "--", self.host, remote]

    @property
    def login(self) -> str:
        """The command that a person would type to reach it."""
        parts = ["ssh"]
        if self.config is not None:
            parts += ["-F", str(self.config)]
        if self.port is not None:
            parts += ["-p", str(self.port)]
        return shlex.join([*parts, self.host])

    @property
    def interpreter(self) -> str:
        """As a shell there takes it."""
        if self.python.startswith("~/"):
            return "~/" + shlex.quote(self.python[2:])
        return shlex.quote(self.python)


def explain(address: Address, code: int, said: str, *, connected: bool) -> DeviceError:
    """Why `ssh` ended, as an error.

    Args:
        code: its exit code; 255 is a failure of its own, others are the remote command's.
        said: what it wrote to stderr.
        connected: whether the agent had answered before.
    """
    where, lower = address.host, said.lower()
    last = said.splitlines()[-1].strip() if said else f"ssh ended with exit code {code}"
    if connected:
        return DeviceError(f"the connection was lost ({last})", where=where, lost=True)
    if code != 255 and (code in (126, 127) or "not found" in lower):
        return DeviceError(
            f"there is no {address.python!r} ({last})",
            where=where,
            mend="install Python 3.8 or newer there, or name its `python`",
        )
    if code != 255:
        return DeviceError(
            f"{address.python!r} does not run there ({last})",
            where=where,
            mend="Python 3.8 or newer is needed; name its `python`",
        )
    if "remote host identification has changed" in lower:
        return DeviceError(
            "its host key is another one than before",
            where=where,
            mend=f"if that is right, remove the old one (`ssh-keygen -R`) and connect by hand: "
            f"`{address.login}`",
        )
    if "host key" in lower:
        port = f"-p {address.port} " if address.port else ""
        return DeviceError(
            "its host key is not known",
            where=where,
            mend=f"connect once by hand to accept it: `{address.login}`, or add what "
            f"`ssh-keyscan {port}{shlex.quote(address.host.rpartition('@')[2])}` prints to "
            "known_hosts",
        )
    for pattern, problem, mend in _MENDS:
        if pattern in lower:
            return DeviceError(f"{problem} ({last})", where=where, mend=mend)
    return DeviceError(f"ssh failed ({last})", where=where, mend=f"try `{address.login}`")


def environment(host: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The agent's facts as a result's environment tells a machine's."""
    cpus = facts["cpus"]
    cores = len(cpus) if cpus is not None else facts["cores"]
    return {
        "host": host,
        "python": facts["python"],
        "system": facts["system"],
        "cpu": describe_cpu(facts["cpuinfo"], facts["machine"], facts["processor"], cores),
        "governor": facts["governor"],
        "libraries": {
            name: version for name, version in facts["packages"].items() if isinstance(version, str)
        },
    }


def lacking(address: Address, facts: dict[str, Any]) -> Iterator[DeviceError]:
    """What the runtime needs and the device does not have."""
    absent = {name: told for name, told in facts["packages"].items() if not isinstance(told, str)}
    install = f"{facts['executable']} -m pip install {' '.join(absent)}"
    for name, (said,) in absent.items():
        yield DeviceError(
            f"{facts['executable']} cannot import {name} ({said})",
            where=address.host,
            mend=f"`{address.login} {shlex.quote(install)}`, or name another `python`",
        )
