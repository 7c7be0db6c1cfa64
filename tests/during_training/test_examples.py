"""The examples of docs/training-scripts.md, as a reader would run them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training-scripts.md").read_text()
EXAMPLES = dict(
    zip(
        ("sklearn", "lightning", "transformers"),
        re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL),
        strict=True,
    )
)


@pytest.mark.slow
@pytest.mark.parametrize("needs", EXAMPLES)
def test_it_trains_compresses_and_passes(needs: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[needs])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("passed")


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_without_its_extra_a_callback_says_which(name: str) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None\nimport lepton_compress.during_training.{name}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert f"pip install 'lepton-compress[{name}]'" in done.stderr.splitlines()[-1]
