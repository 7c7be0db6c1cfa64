"""Pictures for slides: real PNG and SVG files, the same each time."""

from __future__ import annotations

import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lepton_compress.report.chart import chart
from lepton_compress.report.figure import figure
from tests.report.results import result

pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
CHART = chart(result(parities=()), "edge", "latency")
SVG = "{http://www.w3.org/2000/svg}"


def test_a_png_of_a_slide(tmp_path: Path) -> None:
    made = figure([CHART], "tiny", kind="png")
    assert made.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", made[16:24])
    assert (width, height) == (1720, 1040)
    _, taller = struct.unpack(">II", figure([CHART, CHART], "tiny", kind="png")[16:24])
    assert taller == 1040 + 960


def test_an_svg_whose_texts_are_texts() -> None:
    made = ET.fromstring(figure([CHART], "tiny <&> $x^2$", kind="svg"))
    texts = {"".join(each.itertext()).strip() for each in made.iter(f"{SVG}text")}
    expected = {
        "tiny <&> $x^2$",
        "baseline",
        "int8",
        "accuracy",
        "latency of one call, p50, on edge",
    }
    assert expected <= texts


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_bytes_each_time(kind: str) -> None:
    one, other = (figure([CHART], "tiny", kind=kind) for _ in "ab")  # type: ignore[arg-type]
    assert one == other


def test_without_matplotlib_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('no matplotlib here')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lepton_compress.errors import MissingExtraError\n"
        "from lepton_compress.report.figure import figure\n"
        "try:\n    figure([], 'x', kind='png')\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "a picture needs matplotlib" in done.stdout
    assert "pip install 'lepton-compress[plot]'" in done.stdout
