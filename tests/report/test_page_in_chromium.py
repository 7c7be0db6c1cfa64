"""The page in a real browser: what its script does, on a screen and on a phone.

A driver page holds the report in a frame, uses it as a reader would and writes down what it sees.
"""

from __future__ import annotations

import html as escaping
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.report.html import html
from tests.report.pages import hostile
from tests.report.results import profile, result

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

DRIVER = """<!doctype html><meta charset="utf-8">
<iframe style="width:WIDTHpx;height:900px;border:0" srcdoc="PAGE"></iframe><pre id="seen"></pre>
<script>
document.querySelector("iframe").addEventListener("load", (event) => {
  const view = event.target.contentWindow, page = view.document, seen = {};
  const all = (what) => [...page.querySelectorAll(what)];
  const visible = (what) => all(what).filter((each) => each.getClientRects().length > 0);
  const note = (name, what) => {
    try { seen[name] = what(); } catch (error) { seen[name] = String(error); }
  };
  STEPS
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"""


def look(folder: Path, page: str, steps: str, *, width: int = 1100) -> dict[str, Any]:
    """What the driver notes after these steps."""
    driver = folder / "driver.html"
    frame = escaping.escape(page, quote=True)
    text = DRIVER.replace("WIDTH", str(width)).replace("STEPS", steps)
    driver.write_text(text.replace("PAGE", frame), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--disable-gpu", "--no-first-run"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1300,1000"]
    command += ["--virtual-time-budget=4000", "--dump-dom", driver.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(escaping.unescape(found.group(1)))
    return seen


def two_targets() -> str:
    held = result(("edge", "cloud"), parities=())
    return html([held], ["name: tiny"])


STEPS = """
note("script", () => page.documentElement.classList.contains("script"));
note("charts", () => visible(".chart").map((c) => c.dataset.target + " " + c.dataset.axis));
note("pictures", () => visible(".chart svg").length);
page.querySelector("input[value=size]").click();
note("by size", () => visible(".chart").map((c) => c.dataset.target + " " + c.dataset.axis));
page.querySelector("input[name$=-target][value='1']").click();
note("other target", () => visible(".chart").map((c) => c.dataset.target + " " + c.dataset.axis));
note("tables", () => visible(".wide-table caption").map((c) => c.textContent));
const names = () => [...visible(".wide-table tbody th")].map((c) => c.firstChild.data);
const heading = (text) => visible(".wide-table .sort").find((b) => b.textContent === text);
heading("size").click();
note("smallest first", names);
heading("size").click();
note("largest first", names);
note("told", () => heading("size").parentNode.getAttribute("aria-sort"));
note("tip before", () => page.getElementById("tip").hidden);
visible(".chart .mark")[1].focus();
note("tip", () => page.getElementById("tip").textContent);
visible(".chart .mark")[1].blur();
note("tip after", () => page.getElementById("tip").hidden);
const rows = () => visible(".verdicts tbody tr").length;
note("verdicts", rows);
page.querySelector(".only-bad").click();
note("failures", rows);
const ground = () => view.getComputedStyle(page.body).backgroundColor;
note("light", ground);
page.getElementById("theme").click();
note("dark", ground);
note("theme says", () => page.getElementById("theme").textContent);
note("overflow", () => page.documentElement.scrollWidth - page.documentElement.clientWidth);
"""


def test_a_reader_chooses_sorts_filters_and_changes_the_theme(tmp_path: Path) -> None:
    seen = look(tmp_path, two_targets(), STEPS)
    tip = seen.pop("tip")
    assert seen == {
        "script": True,
        "charts": ["0 latency"],
        "pictures": 1,
        "by size": ["0 size"],
        "other target": ["1 size"],
        "tables": ["Every variant on cloud"],
        "smallest first": ["int8", "baseline"],
        "largest first": ["baseline", "int8"],
        "told": "descending",
        "tip before": True,
        "tip after": True,
        "verdicts": 2,
        "failures": 1,
        "light": "rgb(244, 246, 249)",
        "dark": "rgb(15, 20, 27)",
        "theme says": "Light",
        "overflow": 0,
    }
    assert tip.startswith("int8accuracy 97.00 % (95 %: 95.00 % to 99.00 %)\nsize of the artifact")


def test_on_a_phone_nothing_is_wider_than_the_screen(tmp_path: Path) -> None:
    names = [f"a-variant-with-a-rather-long-name-{i}" for i in range(4)]
    held = result(parities=())
    artifact, score = held.artifacts[1], held.scores[1]
    wide = result(
        parities=(),
        artifacts=(held.artifacts[0], *(_named(artifact, name) for name in names)),
        scores=(held.scores[0], *(_named(score, name) for name in names)),
        profiles=tuple(profile(n, "edge", 0.5) for n in ("baseline", *names)),
    )
    steps = """
    for (const each of all("details")) each.open = true;
    note("overflow", () => page.documentElement.scrollWidth - page.documentElement.clientWidth);
    note("pictures", () => visible(".chart svg").map((s) => s.getAttribute("class")));
    note("letters", () => Math.min(...visible(".chart text").map((t) =>
      parseFloat(view.getComputedStyle(t).fontSize) * t.getScreenCTM().a)));
    """
    seen = look(tmp_path, html([wide], ["name: " + "x" * 300]), steps, width=390)
    assert seen["overflow"] == 0
    assert seen["pictures"] == ["narrow"]
    assert seen["letters"] >= 9


def _named(held: Any, name: str) -> Any:
    return type(held)(**{**vars(held), "candidate": name})


def test_no_text_from_outside_runs(tmp_path: Path) -> None:
    steps = """
    note("script", () => page.documentElement.classList.contains("script"));
    for (const each of all("details")) each.open = true;
    for (const each of visible(".mark")) each.focus();
    for (const each of visible(".sort")) each.click();
    note("tip", () => page.getElementById("tip").childElementCount);
    note("hacked", () => [view.hacked, window.hacked].map(String));
    note("scripts", () => all("script").length);
    """
    seen = look(tmp_path, html([hostile()], ["<script>window.hacked = 1</script>"]), steps)
    assert seen == {
        "script": True,
        "tip": 1,
        "hacked": ["undefined", "undefined"],
        "scripts": 1,
    }
