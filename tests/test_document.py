"""YAML files: plain values come back as written, everything else ends in one clear line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress import document
from lepton_compress.document import MAX_BYTES, MAX_DEPTH, MAX_NODES, read_document, show
from lepton_compress.errors import RecipeError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)
structures = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)


def read(folder: Path, text: str | bytes) -> document.Document:
    path = folder / "recipe.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(path)


def refused(folder: Path, text: str | bytes) -> str:
    with pytest.raises(RecipeError) as caught:
        read(folder, text)
    assert caught.value.mend, "an error says what to do"
    return str(caught.value).replace(str(folder) + os.sep, "")


@given(structures)
def test_plain_structures_read_back_equal(tmp_path: Path, structure: Any) -> None:
    assert read(tmp_path, yaml.safe_dump({"top": structure})).value == {"top": structure}


@given(structures)
def test_every_value_has_a_line(tmp_path: Path, structure: Any) -> None:
    found = read(tmp_path, yaml.safe_dump({"top": structure}))

    def walk(value: Any, key: document.Key) -> None:
        assert key in found.lines
        inner = value.items() if isinstance(value, dict) else ()
        for part, each in enumerate(value) if isinstance(value, list) else inner:
            walk(each, (*key, part))

    walk(found.value["top"], ("top",))


yaml_words = st.sampled_from(
    [
        *"[]{}:,-?&*!|>'\"%@`#\n \t",
        *("a", "- ", ": ", "&x", "*x", "<<", "include", "!!int ", "!!bool ", "!!python/name:os "),
        *("1", "=", "~", "---", "...", "2020-01-01", "1:30", '"\\ud800"', "x-", "!!set ", "\n  "),
    ]
)


def error_of(folder: Path, text: bytes) -> RecipeError | None:
    try:
        assert isinstance(read(folder, text).value, dict)
    except RecipeError as error:
        return error
    return None


@given(st.text() | st.lists(yaml_words, max_size=25).map("".join))
def test_any_text_reads_or_is_a_recipe_error(tmp_path: Path, text: str) -> None:
    error = error_of(tmp_path, text.encode("utf-8", "surrogatepass"))
    if error is not None:
        assert str(error).encode().startswith(bytes(tmp_path))
        assert "\n" not in str(error)


@given(st.binary())
def test_any_bytes_read_or_are_a_recipe_error(tmp_path: Path, data: bytes) -> None:
    error = error_of(tmp_path, data)
    assert error is None or str(error).startswith(str(tmp_path))


def test_a_key_is_shown_as_a_person_would_write_it() -> None:
    assert show(("variants", "int8", 0, "quantize")) == "variants.int8[0].quantize"
    assert show((".odd", 1)) == ".odd[1]"
    assert show(()) == ""


def test_places_are_named_by_file_line_and_key(tmp_path: Path) -> None:
    found = read(tmp_path, "a: 1\nb:\n  - x\n  - c:\n      d: 5\n")
    path = tmp_path / "recipe.yaml"
    assert found.where(("a",)) == f"{path}:1: a"
    assert found.where(("b", 1, "c", "d")) == f"{path}:5: b[1].c.d"
    assert found.where(("b", 1, "c", "absent", 3)) == f"{path}:4: b[1].c"
    assert found.where(("absent", 0)) == f"{path}:1: absent[0]"
    assert found.where(()) == f"{path}:1"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "recipe.yaml: the file is empty"),
        ("# nothing\n", "recipe.yaml: the file is empty"),
        ("\n- a\n", "recipe.yaml:2: the top level is not a mapping"),
        ("just text", "recipe.yaml:1: the top level is not a mapping"),
        ("a: 1\n\tb: 2\n", "recipe.yaml:2: not valid YAML"),
        ("a: [1\n", "recipe.yaml:2: not valid YAML"),
        ("a: 1\nb: \x01\n", r"recipe.yaml:2: not valid YAML: the character '\x01' is not allowed"),
        ("a: 1\n---\nb: 2\n", "recipe.yaml:2: not valid YAML"),
        ("a: *b\n", "recipe.yaml:1: not valid YAML: found undefined alias"),
        (b"a: 1\nb: \xff\n", "recipe.yaml:2: is not UTF-8 text"),
        ("a:\n  b: 1\n  b: 2\n", "recipe.yaml:3: a.b: the key stands twice"),
        ("1: a\n'1': b\n", "recipe.yaml:2: 1: the key stands twice"),
        ("a: 1\n[b]: 2\n", "recipe.yaml:2: a key must be a plain word"),
        ("'\\ud800': 1\n".replace("'", '"'), "recipe.yaml:1: a key must be a plain word"),
        ('a: "\\ud800"\n', "recipe.yaml:1: a: '\\ud800' has half a character"),
        ("a: 2026-01-31\n", "recipe.yaml:1: a: '2026-01-31' is taken for a date"),
        ("a: 12:30\n", "recipe.yaml:1: a: '12:30' is taken for a number"),
        ("a: !!int x\n", "recipe.yaml:1: a: 'x' is taken for a number"),
        ("a: !!bool x\n", "recipe.yaml:1: a: 'x' is taken for a true or false"),
        ("a: " + "9" * 5000, "recipe.yaml:1: a: '999"),
        ("a:\n  <<: 5\n", "recipe.yaml:2: << takes a mapping"),
        ("a: !!binary aGk=\n", "recipe.yaml:1: a: the tag !!binary is refused"),
        ("a: !!set {b}\n", "recipe.yaml:1: a: the tag !!set is refused"),
        ("a: =\n", "recipe.yaml:1: a: the tag !!value is refused"),
        ("a: !own b\n", "recipe.yaml:1: a: the tag !own is refused"),
        ("a: !!python/object:os.system {}\n", "recipe.yaml:1: a: the tag !!python/object:os.sys"),
        ("a: !!python/object/apply:os.abort []\n", "recipe.yaml:1: a: the tag !!python/object/app"),
        ("a: !!python/name:os.system x\n", "recipe.yaml:1: a: the tag !!python/name:os.system"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "recipe.yaml:1: nested deeper than 50 levels"),
        ("a: " + "[" * 9000 + "]" * 9000, "recipe.yaml: nested deeper than 50 levels"),
        ("a: &a [*a]\n", "recipe.yaml:1: nested deeper than 50 levels"),
        ("a: &a {<<: *a}\n", "recipe.yaml:1: nested deeper than 50 levels"),
        ("a: &a {<<: [*a, *a]}\n", "recipe.yaml:1: nested deeper than 50 levels"),
    ],
)
def test_bad_files_end_in_one_clear_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert refused(tmp_path, text).startswith(line)


def test_tabs_get_their_own_mend(tmp_path: Path) -> None:
    assert refused(tmp_path, "a:\n\tb: 2\n").endswith("indent with spaces")


def test_a_depth_within_the_limit_is_read(tmp_path: Path) -> None:
    text = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    assert read(tmp_path, f"a: {text}").value["a"] == yaml.safe_load(text)


@pytest.mark.parametrize("merge", [False, True])
def test_a_file_that_expands_without_end_is_refused(tmp_path: Path, merge: bool) -> None:
    lines = ["x-0: &n0 {a: 1, b: 2}"]
    for level in range(1, 40):
        below = f"*n{level - 1}"
        inner = f"{{<<: [{below}, {below}]}}" if merge else f"[{below}, {below}]"
        lines.append(f"x-{level}: &n{level} {inner}")
    said = refused(tmp_path, "\n".join(lines))
    assert f"more than {MAX_NODES:,} values once anchors are expanded" in said


def test_a_file_over_the_limit_is_refused_unparsed(tmp_path: Path) -> None:
    said = refused(tmp_path, "a: " + "[" * MAX_BYTES)
    assert said.startswith("recipe.yaml: is over 1,000,000 bytes")


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(RecipeError, match="is over 1,000,000 bytes"):
        read_document(Path("/dev/zero"))


@pytest.mark.parametrize(("name", "said"), [("absent", "no such file"), ("", "directory")])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        read_document(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffa: 1\n").value == {"a": 1}


def test_merges_follow_yaml_and_lines_follow_the_values(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "x-one: &one {a: 1, b: 1}\n"
        "x-two: &two\n  b: 2\n  c: [2]\n"
        "first:\n  <<: [*one, *two]\n  c: 3\n"
        "last:\n  c: 3\n  <<: *two\n",
    )
    assert found.value == {"first": {"a": 1, "b": 1, "c": 3}, "last": {"b": 2, "c": 3}}
    line = {show(key): line for key, (_, line) in found.lines.items()}
    assert (line["first"], line["first.a"], line["first.b"], line["first.c"]) == (5, 1, 1, 7)
    assert (line["last"], line["last.b"], line["last.c"]) == (8, 3, 9)


def test_a_merged_list_item_keeps_its_own_line(tmp_path: Path) -> None:
    found = read(tmp_path, "x-a: &a {b: 1}\nlist:\n  - <<: *a\n    c: 2\n")
    assert found.where(("list", 0)).endswith(":3: list[0]")


class TestInclude:
    def test_files_overlay_each_other_by_top_level_key(self, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        (shared / "one.yaml").write_text("x-z: 0\na: 1\nb: {deep: 1}\nc: 1\n")
        (shared / "two.yaml").write_text("b: {other: 2}\nd: 2\n")
        found = read(tmp_path, "include: [shared/one.yaml, shared/two.yaml]\nc: 3\n")
        assert found.value == {"a": 1, "b": {"other": 2}, "c": 3, "d": 2}
        assert found.where(("a",)) == f"{shared / 'one.yaml'}:2: a"
        assert found.where(("b", "other")) == f"{shared / 'two.yaml'}:1: b.other"
        assert found.where(("b", "deep")) == f"{shared / 'two.yaml'}:1: b"
        assert found.where(("c",)) == f"{tmp_path / 'recipe.yaml'}:2: c"

    def test_one_file_needs_no_list(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("a: 1\n")
        assert read(tmp_path, "include: base.yaml\n").value == {"a": 1}

    def test_it_is_relative_to_the_file_that_says_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "base.yaml").write_text("a: 1\n")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        assert read(tmp_path, "include: base.yaml\n").value == {"a": 1}

    def test_a_nested_one_is_refused_where_it_stands(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("a: 1\ninclude: other.yaml\n")
        said = refused(tmp_path, "include: base.yaml\n")
        assert said.startswith("base.yaml:2: include: an included file may not include another")

    def test_a_file_may_not_include_itself(self, tmp_path: Path) -> None:
        said = refused(tmp_path, "a: 1\ninclude: recipe.yaml\n")
        assert said.startswith("recipe.yaml:2: include: an included file may not include another")

    def test_a_missing_one_is_told_where_it_is_asked_for(self, tmp_path: Path) -> None:
        said = refused(tmp_path, "a: 1\ninclude:\n  - absent.yaml\n")
        assert said.startswith("recipe.yaml:3: include[0]: no file 'absent.yaml'")

    def test_mistakes_in_it_are_told_of_its_own_file(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("a: 1\na: 2\n")
        said = refused(tmp_path, "include: base.yaml\n")
        assert said.startswith("base.yaml:2: a: the key stands twice")

    @pytest.mark.parametrize("given", ["5", "{a: b}", "[[a]]", "[1]", '"a\\0b"', '"\\ud800"', "~"])
    def test_what_is_no_name_is_refused(self, tmp_path: Path, given: str) -> None:
        assert refused(tmp_path, f"include: {given}\n").startswith("recipe.yaml:1: include")
