"""`place` on the command line, on a real run's result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lepton_compress import placing
from tests.conftest import Cli
from tests.place.fleets import demands, values

RUN = "runs/tiny"
HERE = "onnxruntime-cpu"


def plain_fleet(**changes: Any) -> dict[str, Any]:
    """A fleet of the target that the run has, with a limit that any machine meets."""
    asked = {"sites__0__target": HERE, "sites__1__target": HERE, **demands(latency="30 s")}
    return values(**{**asked, **changes})


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run / "runs" / "tiny", tmp_path / RUN)
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(plain_fleet(), sort_keys=False))
    return tmp_path


def test_a_plan_from_a_real_run(run: Path, cli: Cli) -> None:
    done = cli("place", RUN, "--fleet", "fleet.yaml", "--quick", cwd=run)
    assert done.returncode == 0, done.stderr
    assert "> edge: tiny:" in done.stdout
    assert "cloud region: tiny:baseline" in done.stdout
    assert done.stdout.endswith("every demand is met\n")


def test_machines_get_json_and_a_page(run: Path, cli: Cli) -> None:
    done = cli(
        *("place", RUN, "--fleet", "fleet.yaml", "--quick", "--json", "--html", "out/plan.html"),
        cwd=run,
    )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    jsonschema.validate(body, placing.json_schema())
    assert body["placed"][0]["plan"]["provenance"] == "measured"
    assert "<h1" in (run / "out" / "plan.html").read_text()


def test_what_is_impossible_is_1_and_says_what_would_have_to_give(run: Path, cli: Cli) -> None:
    (run / "fleet.yaml").write_text(
        yaml.safe_dump(plain_fleet(**demands(accuracy=1.1, only=["edge"])))
    )
    done = cli("place", RUN, "--fleet", "fleet.yaml", cwd=run)
    assert done.returncode == 1, done.stderr
    assert "see at camera: possible with accuracy" in done.stdout
    assert done.stdout.endswith("no plan meets every demand\n")


@pytest.mark.slow
def test_simulated_drawn_and_with_what_would_change(run: Path, cli: Cli) -> None:
    (run / "fleet.yaml").write_text(
        yaml.safe_dump(plain_fleet(**demands(latency="30 s", only=["cloud"])))
    )
    done = cli(*("place", RUN, "--fleet", "fleet.yaml", "--simulate", "--plot", "map.png"), cwd=run)
    assert done.returncode == 0, done.stderr
    assert "simulated see at camera" in done.stdout
    assert (run / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_halves_are_measured_where_a_split_is_wanted(tiny_run: Path, cli: Cli) -> None:
    """In the folder of the run itself, beside which its recipe and its data lie."""
    asked = demands(latency="30 s", may_leave="features", only=["split"])
    (tiny_run / "split.yaml").write_text(yaml.safe_dump(plain_fleet(**asked)))
    done = cli("place", RUN, "--fleet", "split.yaml", "--split", "--quick", "--json", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["placed"][0]["plan"]
    assert plan["kind"] == "split"
    assert plan["cut"]["features"]
    assert plan["leaves"] == "features"


def test_an_example_to_start_from(run: Path, cli: Cli) -> None:
    done = cli("place", "--example", "image", cwd=run)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["name"] == "cameras"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("place",), "place: no result is given; name a run's folder"),
        (("place", RUN), "--fleet: no fleet is given; give one; `lepton-compress place --example"),
        (("place", RUN, "--fleet", "none.yaml"), "none.yaml: no such file; check the path"),
        (("place", "runs/none", "--fleet", "fleet.yaml"), "no such file; run the recipe first"),
        (
            ("place", RUN, "--fleet", "fleet.yaml", "--plot", "a.pdf"),
            "--plot: cannot draw 'a.pdf'; name a .png or .svg",
        ),
        (("place", "--example", "video"), "no example 'video'; write image or speech"),
    ],
)
def test_bad_usage_is_one_line(run: Path, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli(*arguments, cwd=run)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_recipe_plans_at_the_end_of_its_run(tiny: Path, cli: Cli) -> None:
    recipe = yaml.safe_load((tiny / "recipe.yaml").read_text())
    (tiny / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "place": "fleet.yaml"}))
    wrong = plain_fleet(sites__0__target="nowhere")
    (tiny / "fleet.yaml").write_text(yaml.safe_dump(wrong))
    done = cli("run", "recipe.yaml", cwd=tiny)
    assert done.returncode == 2
    assert "no result was profiled on 'nowhere'" in done.stderr
    assert not (tiny / "runs").exists()  # found out before anything was computed
    (tiny / "fleet.yaml").write_text(yaml.safe_dump(plain_fleet()))
    done = cli("run", "recipe.yaml", cwd=tiny)
    assert done.returncode == 0, done.stderr
    assert "see at camera" in done.stdout
    made = json.loads((tiny / RUN / placing.PLACEMENT).read_text())
    assert made["feasible"]
    assert (tiny / RUN / placing.PAGE).is_file()
    # It is planned again from what the run left.
    assert cli("place", RUN, "--fleet", "fleet.yaml", "--quick", cwd=tiny).returncode == 0
