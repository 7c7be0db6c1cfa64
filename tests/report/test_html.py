"""The page: whole in itself, safe with any text, sound HTML that all readers can use."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import pytest

from lepton_compress.artifacts import Choice, RunResult
from lepton_compress.report.html import TEMPLATES, html
from tests.report.pages import EVIL, Element, hostile, large, read
from tests.report.results import profile, result

MEGABYTE = 1_000_000


def page(*results: RunResult) -> str:
    return html(results, ["name: tiny # " + EVIL] * len(results), [EVIL] if results[1:] else [])


@pytest.fixture(scope="module")
def tree() -> Element:
    """A page of two runs on two targets each, read."""
    return read(page(result(("edge", "cloud")), result(("edge", "cloud"), recipe="second")))


class TestWhole:
    def test_nothing_is_fetched(self, tree: Element) -> None:
        for element in tree.all("*"):
            assert element.tag not in ("link", "img", "iframe", "object", "embed", "base")
            for name in ("src", "srcset", "action", "xlink:href", "style"):
                assert name not in element.attributes
            assert element.attributes.get("href", "#").startswith("#")
        style, script = (tree.all(tag)[0].says() for tag in ("style", "script"))
        assert "url(" not in style
        assert "@import" not in style
        for word in ("fetch", "XMLHttpRequest", "import(", "eval", "innerHTML", "document.write"):
            assert word not in script

    def test_the_policy_names_what_stands_in_the_file(self, tree: Element) -> None:
        (policy,) = [
            meta.attributes["content"]
            for meta in tree.all("meta")
            if meta.attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for tag, kind in (("style", "style-src"), ("script", "script-src")):
            (element,) = tree.all(tag)
            held = base64.b64encode(hashlib.sha256(element.says().encode()).digest()).decode()
            assert f"{kind} 'sha256-{held}'" in policy

    def test_a_large_result_stays_small_enough_to_send(self) -> None:
        made = page(large())
        assert len(made.encode()) < MEGABYTE
        assert "more stand in result.json" in made

    def test_many_runs_share_the_room(self) -> None:
        made = html([large(variants=10, samples=200)] * 4)
        assert len(made.encode()) < MEGABYTE


class TestSafe:
    def test_no_text_from_outside_becomes_an_element(self) -> None:
        tree = read(page(hostile(), hostile()))
        assert len(tree.all("script")) == 1
        assert len(tree.all("style")) == 1
        assert tree.all("img") == []
        for element in tree.all("*"):
            assert not [name for name in element.attributes if name.startswith("on")]
        said = tree.says()
        assert EVIL in said
        assert "603729" not in said, "a template in a text was carried out"

    def test_the_rest_of_the_page_is_as_it_would_be(self) -> None:
        shape = [element.tag for element in read(page(result())).all("*")]
        evil = [element.tag for element in read(page(hostile())).all("*")]
        assert set(evil) <= set(shape) | {"span", "td"}


class TestSound:
    def test_ids_are_unique_and_references_lead_to_them(self, tree: Element) -> None:
        ids = [e.attributes["id"] for e in tree.all("*") if "id" in e.attributes]
        assert len(ids) == len(set(ids))
        for link in tree.all("a"):
            assert link.attributes["href"].removeprefix("#") in ids
        for element in tree.all("*"):
            if label := element.attributes.get("aria-labelledby"):
                assert label in ids

    def test_every_table_has_a_caption_and_headings_with_scope(self, tree: Element) -> None:
        tables = tree.all("table")
        assert len(tables) > 8
        for table in tables:
            assert len(table.all("caption")) == 1
            assert all(th.attributes.get("scope") in ("col", "row") for th in table.all("th"))
            columns = len(table.all("thead")[0].all("th"))
            for row in table.all("tbody")[0].all("tr"):
                assert len(row.children) == columns

    def test_every_control_has_a_name(self, tree: Element) -> None:
        for button in tree.all("button"):
            assert button.attributes.get("aria-label") or button.says().strip()
        labelled = [each for label in tree.all("label") for each in label.all("input")]
        assert len(labelled) == len(tree.all("input")) > 0
        groups = {f.all("legend")[0].says() for f in tree.all("fieldset")}
        assert groups == {"target", "cost"}
        names = {i.attributes["name"] for i in tree.all("input") if "name" in i.attributes}
        assert len(names) == 4, "each run has its own"

    def test_every_point_can_be_reached_and_says_what_it_is(self, tree: Element) -> None:
        marks = [g for g in tree.all("g") if "tabindex" in g.attributes]
        assert marks
        for mark in marks:
            assert mark.attributes["role"] == "img"
            assert mark.attributes["data-name"] in mark.attributes["aria-label"]
        assert all("aria-label" in each.attributes for each in tree.all("svg") if each.all("g")
                   and each.attributes.get("aria-hidden") != "true")  # fmt: skip

    def test_headings_go_down_by_one(self, tree: Element) -> None:
        levels = [int(e.tag[1]) for e in tree.all("*") if re.fullmatch("h[1-6]", e.tag)]
        assert levels.count(1) == 1
        assert max(levels) == 2

    def test_colours_can_be_read(self) -> None:
        """At least 4.5 to 1 for text (WCAG 2.2, criterion 1.4.3), in both themes."""
        style = (TEMPLATES / "report.css").read_text()
        themes = re.findall(r"\{([^{}]*--page:[^{}]*)\}", style)
        assert len(themes) == 3
        for theme in themes:
            colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", theme))
            for ink in ("text", "muted", "accent", "good", "bad", "budget"):
                for ground in ("card", "page", "soft"):
                    assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground, theme)


def contrast(one: str, other: str) -> float:
    """As WCAG defines it, from the relative luminance of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


class TestTells:
    def test_what_was_chosen_and_why(self) -> None:
        said = read(page(result())).says()
        for text in ("tiny", "chosen on edge", "int8", "0.50x the latency", "97.00 %", "a note",
                     "size at most 100 KB", "1 lost, 0 gained of 4 samples", "left | float",
                     "the baseline against itself: 1.00x"):  # fmt: skip
            assert text.lower() in said.lower(), text

    def test_how_to_make_it_again(self) -> None:
        held = result(environment=result().environment | {"recipe.yaml": "../my recipe.yaml"})
        said = read(html([held], ["version: 1"])).says()
        assert "lepton-compress run '../my recipe.yaml'" in said
        assert "version: 1" in said
        assert "a" * 64 in said
        assert "Made by a script" in read(html([result()])).says()

    def test_several_runs_are_put_beside_each_other(self, tree: Element) -> None:
        (heading,) = tree.all("h1")
        assert heading.says() == "2 runs side by side"
        first = tree.all("table")[0]
        assert [row.children[0].children[0].says() for row in first.all("tbody")[0].all("tr")]
        assert len(first.all("tbody")[0].all("tr")) == 4
        assert EVIL in tree.says(), "the note on what differs"

    @pytest.mark.parametrize(
        "held",
        [
            result(scores=(), labels=()),
            result(profiles=()),
            result(verdicts=(), candidates=(), artifacts=(), scores=(), profiles=()),
            result(chosen=(Choice("edge", None, None, "nothing works", False),), passed=False),
            result(environment={}),
            result(
                profiles=tuple(
                    profile(n, "edge", None, status="failed", reason="x", latency={}, interval={})
                    for n in ("baseline", "int8")
                )
            ),
            replace(result(), fronts=(), notes=(), labels=()),
        ],
        ids=["scores", "profiles", "all", "choice", "environment", "runs", "fronts"],
    )
    def test_whatever_is_missing(self, held: RunResult) -> None:
        assert held.recipe in read(page(held)).says()
