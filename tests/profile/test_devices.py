"""Measuring on a device, which is this machine behind a real SSH server."""

from __future__ import annotations

import ast
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lepton_compress.artifacts import Profile
from lepton_compress.profile import agent, worker
from lepton_compress.profile import measure as module
from lepton_compress.profile.address import Address, explain
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.places import There, address, site
from lepton_compress.profile.process import Job
from lepton_compress.profile.session import Limits
from lepton_compress.profile.ssh import Connection
from lepton_compress.recipe import TargetSpec
from lepton_compress.targets import frames, onnxruntime_session
from tests.profile.test_measure import BATCH, INPUTS, Watcher, perceptron
from tests.sshd import MISSING, Server, free_port, serving

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    with serving(folder, sys.executable) as made:
        yield made


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    small, large = (perceptron(tmp_path / f"{size}.onnx", size) for size in (2, 8))
    return [Subject("baseline", "onnx", small), Subject("large", "onnx", large)]


def measured(server: Server, subjects: list[Subject], **changes: Any) -> dict[str, Profile]:
    """Measure more than the rounds there."""
    target = TargetSpec(**{**server.target, "batch": BATCH})
    held: dict[str, Any] = {"limits": Limits(), "rounds": 5, "cap": 5.0, "seed": 0}
    held |= {"baseline": "baseline", "inputs": INPUTS, "observer": Watcher()}
    return {each.candidate: each for each in measure(subjects, target=target, **held, **changes)}


def profiles(
    server: Server, subjects: list[Subject], watcher: Watcher | None = None, **changes: Any
) -> dict[str, Profile]:
    """Measure there, and name the profiles by candidate."""
    target = TargetSpec(**{**server.target, "batch": BATCH, **changes})
    made = measure(
        subjects,
        baseline="baseline",
        target=target,
        inputs=INPUTS,
        limits=Limits(),
        rounds=5,
        cap=0.0,
        seed=0,
        observer=watcher or Watcher(),
    )
    return {each.candidate: each for each in made}


def workers(server: Server) -> list[psutil.Process]:
    """Those that run on the device."""
    held = str(server.folder / "remote")
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(part.startswith(held) for part in each.cmdline()):
                found.append(each)
    return sorted(found, key=lambda each: each.pid)


def test_a_device_is_measured_as_this_machine_is(server: Server, subjects: list[Subject]) -> None:
    seen: list[set[str]] = []

    def look(number: int) -> None:
        seen.append({each.name for each in server.left[0].iterdir()})

    found = profiles(server, subjects, Watcher(look))
    base, large = found["baseline"], found["large"]
    assert {each.status for each in found.values()} == {"measured"}, base.reason
    assert large.ratio_interval is not None
    assert large.ratio_interval[0] > 1.1
    assert base.noise is not None
    assert base.rounds == large.rounds == 5
    assert base.cold_start is not None
    assert base.cold_start > base.latency["p50"] > 0
    assert base.peak_memory is not None
    assert base.peak_memory > 0
    assert base.device["host"] == server.target["host"]
    assert base.device["cpu"]["cores"] >= 1
    assert set(base.device["libraries"]) == {"numpy", "onnxruntime"}
    # Three workers, two of them with the same artifact: two artifacts, the inputs, four programs.
    files = {name for name in seen[0] if not name.endswith(".err") and "." in name[1:]}
    assert len({name for name in files if name.endswith(".onnx")}) == 2
    assert len(files) == 7
    assert server.emptied()


def test_a_broken_artifact_fails_alone(
    server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(subjects[0].path.read_bytes()[:500])
    found = profiles(server, [*subjects[:1], Subject("broken", "onnx", broken)])
    assert found["baseline"].status == "measured"
    assert found["broken"].reason.startswith(f"{broken}: ONNX Runtime cannot load it")
    assert not found["broken"].unreached


def test_a_killed_worker_fails_alone(server: Server, subjects: list[Subject]) -> None:
    def kill(number: int) -> None:
        if number == 2:
            workers(server)[1].kill()

    found = profiles(server, subjects, Watcher(kill))
    assert found["baseline"].status == "measured"
    assert "SIGKILL" in found["large"].reason
    assert not found["large"].unreached


def test_a_broken_connection_is_made_again(
    server: Server, subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.1, 0.1))
    cuts: list[int] = []

    def cut(number: int) -> None:
        if number == 3 and not cuts:
            cuts.append(number)
            server.cut()

    watcher = Watcher(cut)
    found = profiles(server, subjects, watcher)
    assert {each.status for each in found.values()} == {"measured"}
    assert {each.rounds for each in found.values()} == {5}, "rounds before the break do not count"
    assert len(watcher.notes) >= 1
    assert "the connection was lost" in watcher.notes[0]
    assert server.emptied()
    assert workers(server) == []


def test_a_server_that_is_gone_leaves_nothing_measured(
    server: Server, subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.1, 0.1))
    watcher = Watcher(lambda number: server.kill() if number == 2 else None)
    found = profiles(server, subjects, watcher)
    for each in found.values():
        assert (each.status, each.unreached, each.latency) == ("failed", True, {})
        assert "refuses the connection" in each.reason
        assert each.reason.endswith("after 2 more attempts")
    assert server.emptied()
    assert workers(server) == []


def test_an_interruption_leaves_nothing(server: Server, subjects: list[Subject]) -> None:
    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profiles(server, subjects, Watcher(interrupt))
    assert server.left == []
    assert workers(server) == []


def test_an_interruption_in_a_turn_leaves_nothing_soon(
    server: Server, subjects: list[Subject]
) -> None:
    target = TargetSpec(**server.target, batch=BATCH)
    inputs = server.folder / "inputs.npz"
    np.savez(inputs, INPUTS["x"])
    with site(target, Path(), []) as there:
        job = Job(target.runtime, str(subjects[1].path), 1, (), str(inputs), ("x",))
        assert isinstance(there, There)
        running = there.start(job)
        running.ready(60)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            running.run(10_000_000, 600)
        running.close()
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert server.left == []
    assert workers(server) == []


def test_an_agent_that_was_killed_is_cleared_away(server: Server) -> None:
    where = address(TargetSpec(**server.target), Path())
    with Connection(where, ["numpy"]) as first:
        folder = first.folder
        (agent_process,) = [
            each
            for each in psutil.process_iter()
            if each.name().startswith("python") and "exec(compile(t" in " ".join(each.cmdline())
            if each.ppid() and str(server.folder) in str(each.environ().get("TMPDIR", ""))
        ]
        agent_process.kill()
    assert [str(each) for each in server.left] == [folder]
    with Connection(where, ["numpy"], [folder, "/", str(server.folder)]):
        assert len(server.left) == 1
    assert server.emptied()
    assert (server.folder / "config").is_file()


def test_an_unknown_host_key_is_refused(server: Server, subjects: list[Subject]) -> None:
    known = server.folder / "known_hosts"
    known.write_text("")
    (profile, _) = profiles(server, subjects).values()
    assert profile.unreached
    assert "its host key is not known; connect once by hand" in profile.reason
    assert f"ssh-keyscan -p {server.port} 127.0.0.1" in profile.reason
    assert known.read_text() == ""


def test_a_host_key_that_changed_is_refused(server: Server, subjects: list[Subject]) -> None:
    other = (server.folder / "user.pub").read_text()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
    (profile, _) = profiles(server, subjects).values()
    assert profile.unreached
    assert "its host key is another one than before" in profile.reason


def test_a_key_that_is_not_authorised_is_refused(server: Server, subjects: list[Subject]) -> None:
    identity = str(server.folder / "host")
    (profile, _) = profiles(server, subjects, identity=identity).values()
    assert profile.unreached
    assert "it refuses the login" in profile.reason


def test_what_the_interpreter_lacks_is_named(
    server: Server, subjects: list[Subject], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    (server.folder / "python").write_text(
        f'#!/bin/sh\nunset PYTHONPATH\nexec {bare}/bin/python "$@"\n'
    )
    (profile, _) = profiles(server, subjects).values()
    assert profile.unreached
    assert "cannot import numpy" in profile.reason
    assert "-m pip install numpy onnxruntime" in profile.reason
    (other, _) = profiles(server, subjects, python="/no/such/python").values()
    assert "there is no '/no/such/python'" in other.reason
    assert server.emptied()


def test_names_are_no_shell_text(server: Server, subjects: list[Subject], tmp_path: Path) -> None:
    odd = tmp_path / "it's $(touch oops) `touch oops`; touch oops"
    odd.mkdir()
    target = server.target
    for name in ("python", "user"):
        (server.folder / name).rename(odd / name)
    (profile, _) = profiles(
        server, subjects, python=str(odd / "python"), identity=str(odd / "user"), directory=str(odd)
    ).values()
    assert profile.status == "measured", profile.reason
    assert {each.name for each in odd.iterdir()} == {"python", "user"}
    assert not list(tmp_path.rglob("oops"))
    assert target["host"]


def test_a_folder_that_cannot_be_made_is_a_reason(server: Server, subjects: list[Subject]) -> None:
    (profile, _) = profiles(server, subjects, directory="/proc/nowhere").values()
    assert profile.unreached
    assert "no folder can be made in /proc/nowhere" in profile.reason


def test_more_threads_than_the_device_has_is_a_reason(
    server: Server, subjects: list[Subject]
) -> None:
    (profile, _) = profiles(server, subjects, threads=1000).values()
    assert "1000 threads need as many CPUs, and the device's" in profile.reason
    assert not profile.unreached


def test_nobody_listens(server: Server, subjects: list[Subject]) -> None:
    watcher = Watcher()
    (profile, _) = profiles(server, subjects, watcher, port=free_port()).values()
    assert profile.unreached
    assert "it refuses the connection" in profile.reason
    assert watcher.notes == [], "what was never reached is not waited for"


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (255, "ssh: Could not resolve hostname x: Name or service not known", "no such host"),
        (255, "ssh: connect to host x port 22: Connection timed out", "does not answer"),
        (255, "", "ssh failed (ssh ended with exit code 255); try `ssh -p 7 pi@x`"),
        (127, "sh: 1: python3: not found", "there is no 'python3'"),
        (1, "SyntaxError: invalid syntax", "does not run there (SyntaxError"),
    ],
)
def test_what_ssh_says_is_explained(code: int, said: str, reason: str) -> None:
    error = explain(Address("pi@x", port=7), code, said, connected=False)
    assert str(error).startswith("pi@x: ")
    assert reason in str(error)
    assert error.mend
    assert not error.lost
    assert explain(Address("pi@x"), code, said, connected=True).lost


@pytest.mark.parametrize("sent", [agent, worker, onnxruntime_session, frames])
def test_what_is_sent_runs_on_old_pythons_and_alone(sent: Any) -> None:
    tree = ast.parse(Path(sent.__file__).read_text(), feature_version=(3, 8))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert {str(name).partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_callers_and_operators_are_measured_there(server: Server, subjects: list[Subject]) -> None:
    for profile in measured(server, subjects, callers=[2], operators=True).values():
        assert profile.status == "measured", profile.reason
        (two,) = profile.callers
        assert (two.callers, two.calls >= 1000) == (2, True)
        assert two.throughput > 0
        assert {each.operator for each in profile.operators} == {"MatMul", "Tanh"}
        assert profile.device["host"] == server.target["host"]
    assert workers(server) == []


def test_settings_reach_a_session_there(server: Server, subjects: list[Subject]) -> None:
    odd = Subject("odd", "onnx", subjects[0].path, {"graph_optimization_level": "nothing"})
    good = Subject("good", "onnx", subjects[0].path, {"enable_cpu_mem_arena": False})
    found = measured(server, [subjects[0], odd, good])
    assert found["good"].status == "measured"
    assert found["good"].session["enable_cpu_mem_arena"] is False
    assert found["odd"].status == "failed"
    assert "nothing" in found["odd"].reason
