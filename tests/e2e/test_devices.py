"""Devices through the command line: a run that measures on one, and the doctor's look at one."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Cli
from tests.sshd import MISSING, Server, free_port, serving

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), sys.executable) as made:
        yield made


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run, whose store has all but the measuring."""
    return shutil.copytree(tiny_run, tmp_path / "bench")


def write(folder: Path, *targets: dict[str, Any], **changes: Any) -> None:
    """Change the recipe in a folder."""
    file = folder / "recipe.yaml"
    file.write_text(
        yaml.safe_dump(yaml.safe_load(file.read_text()) | changes | {"targets": list(targets)})
    )


def result(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "runs" / "tiny" / "result.json").read_text())
    return held


def reach(server: Server) -> list[str]:
    """The options of `doctor` for the server."""
    keys = ("host", "port", "identity", "ssh_config", "python")
    return [
        text for key in keys for text in (f"--{key.replace('_', '-')}", str(server.target[key]))
    ]


def test_a_run_measures_here_and_there(server: Server, folder: Path, cli: Cli) -> None:
    shutil.copy(server.folder / "user", folder / "key")
    (folder / "key").chmod(0o600)
    write(
        folder, {"name": "here", "runtime": "onnxruntime-cpu"}, server.target | {"identity": "key"}
    )
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    made = result(folder)
    assert len(made["profiles"]) == 2 * len(made["artifacts"])
    for each in made["profiles"]:
        assert each["status"] == "measured"
        assert each["samples"] > 0
        assert bool(each["device"]) == (each["target"] == "device")
    assert f"device was measured on {server.target['host']}: " in done.stdout
    report = (folder / "runs" / "tiny" / "report.md").read_text()
    assert f"Measured on {server.target['host']}: " in report
    assert server.emptied()
    (folder / "budget.yaml").write_text("latency: 1 h\n")
    again = cli("gate", "runs/tiny", "--measure", "--budget", "budget.yaml", cwd=folder)
    assert again.returncode == 0, again.stdout + again.stderr


def test_an_unreachable_device_is_not_measured_soon(server: Server, folder: Path, cli: Cli) -> None:
    write(folder, server.target | {"port": free_port()}, gates={"latency": "1 h"})
    for command in ("validate", "plan"):
        assert cli(command, "recipe.yaml", cwd=folder).returncode == 0, "they do not connect"
    start = time.monotonic()
    done = cli("run", "recipe.yaml", cwd=folder)
    assert time.monotonic() - start < 60
    assert done.returncode == 1, done.stdout + done.stderr
    assert "was not measured there" in done.stdout
    made = result(folder)
    assert {(each["status"], each["unreached"]) for each in made["profiles"]} == {("failed", True)}
    about = [each for each in made["verdicts"] if each["gate"] in ("runs", "latency")]
    assert {each["status"] for each in about} == {"NOT_MEASURED"}
    assert "refuses the connection" in about[0]["reason"]


def test_the_doctor_looks_at_a_device(server: Server, tmp_path: Path, cli: Cli) -> None:
    done = cli("doctor", *reach(server), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready: onnxruntime-cpu can be measured there" in done.stdout
    told = json.loads(cli("doctor", *reach(server), "--json", cwd=tmp_path).stdout)
    assert (told["reached"], told["problems"]) == (True, [])
    assert told["device"]["cpu"]["cores"] >= 1
    assert told["folder"] == str(server.folder / "remote")
    assert abs(told["clock"]) < 5, "it is the same clock"
    assert 0 < told["round_trip"] < 5
    assert server.emptied()


def test_the_doctor_names_what_to_mend(server: Server, tmp_path: Path, cli: Cli) -> None:
    config = tmp_path / "config"
    config.write_text("UserKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n")
    done = cli("doctor", *reach(server), "--ssh-config", str(config), cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "its host key is not known; connect once by hand" in done.stdout
    assert "ready" not in done.stdout
    lone = cli("doctor", "--port", "22", cwd=tmp_path)
    assert lone.returncode == 2
    assert "--port: goes with --host" in lone.stderr
    bad = cli("doctor", "--host=-oProxyCommand=touch oops", cwd=tmp_path)
    assert bad.returncode == 2
    assert "is no name of a host" in bad.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"config"}
