"""Write docs/recipe.md, docs/fleet.md and the JSON schemas from the tool's own models.

`python docs/generate.py` writes them; a test checks that they are up to date.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lepton_compress import budget, placing, recipe, registry, units
from lepton_compress.place import fleet

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# The recipe

A recipe is a YAML file: one model, one dataset, variants of the model, where it must run, and the
gates it must pass. Unknown keys are errors. Paths are relative to the recipe. This page is made
from the models that check recipes (`python docs/generate.py`); `lepton-compress schema` prints the
same as JSON schema, and this first line gives an editor completion and checks:

```yaml
# yaml-language-server: $schema=./recipe.schema.json
```

**Quantities** are written with their unit: `2 ms`, `150 KB` (1000 bytes; `KiB` is 1024), `1 %`,
`0.5x`. A bare number where a unit is due is an error.

**Plug-ins** (steps, loaders, metrics, exporters) are written as a name, or as a name with its
parameters: `quantize`, or `quantize: {activations: int8}`. Steps run in order and may repeat;
variants that begin with the same steps share the work. Of a name in two parts, such as
`quantize_auto`, `quantize: auto` is another spelling.

**Data.** Loaders that read files look beside the recipe, then in the folder that the environment
variable `LEPTON_DATA` names; with `sha256` a file must be the one that was meant. Before they
split, they drop samples that lack a value, stand twice, contradict each other or are out of range,
and the result notes what was dropped. What stays is split by the seed.

**Sharing.** `include: base.yaml` (or a list) takes the top-level keys of another recipe in the same
folder; keys of the including file replace them. YAML anchors work; top-level keys that start with
`x-` are ignored and hold them.
"""
SECTIONS = (
    ("model", recipe.ModelSpec),
    ("targets[]", recipe.TargetForm),
    ("gates", budget.Gates),
    ("measure", recipe.Measure),
)
GATES = """
Every gate is written as its limit, or as a mapping with `limit` and:

- `strict: true`: judge by the whole 95 % interval instead of the measured point. An interval that
  holds the limit is INCONCLUSIVE, which does not pass.
- `targets: [name]`: only there. Without it, a gate about latency or memory holds on each target.
  The name of a target with lists of batches or threads means all of them, `edge/b8` one of them.
- `metric: name` (gates on a score or its drop), `percentile: p90` (`latency`).
- `samples: 20` (`worst_class`, `worst_slice`): a class or slice with fewer is INCONCLUSIVE.

`worst_class` and `worst_slice` look at many parts of the data, one of which is bad by chance: they
FAIL where a part is proven to be beyond the limit, corrected for their number by Holm's method, and
are INCONCLUSIVE where only its measured point is. An INCONCLUSIVE verdict says how many samples
would decide. The same gates in a file of their own are a budget: see [gates in CI](ci.md).

An artifact is chosen for a target if it passes every gate and beats the original there. A gate on
something that could not be measured is NOT_MEASURED, which does not pass either.
"""


def main() -> None:
    """Write them all."""
    (ROOT / "docs" / "recipe.md").write_text(page(), encoding="utf-8")
    (ROOT / "recipes" / "recipe.schema.json").write_text(schema(), encoding="utf-8")
    for name, text in more().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")


def schema() -> str:
    """The text of recipes/recipe.schema.json."""
    return json.dumps(recipe.json_schema(), indent=1) + "\n"


FLEET = """# The fleet file

Where models can run, what lies between, what is to be served and what is asked: the input of
[`place`](placement.md). Unknown keys are errors. `lepton-compress place --example image` prints a
commented one to start from. This page is made from the models that check the file;
`fleet.schema.json` beside it is the same for editors, `lepton-compress schema --fleet` prints it.

Quantities are written with their unit: `40 ms`, `10 Mbit/s`, `20 KB` (1000 bytes), `0.05/GB`,
`0.12/h`, `2000/month`, `0.30/kWh`, `2 W`, `2/s`. Prices are in one currency of your choice.
"""
FLEET_SECTIONS = (
    ("sites[]", fleet.Site),
    ("links[]", fleet.Link),
    ("workloads[]", fleet.Workload),
    ("workloads[].demands", fleet.Demands),
)


def more() -> dict[str, str]:
    """The other files in docs/ that are made from models, by name."""
    schemas = {"fleet": fleet.json_schema(), "placement": placing.json_schema()}
    made = {f"{name}.schema.json": json.dumps(s, indent=1) + "\n" for name, s in schemas.items()}
    return made | {"fleet.md": "\n".join(_fleet()).rstrip() + "\n"}


def _fleet() -> Iterator[str]:
    yield FLEET
    yield "## Top level\n"
    yield from _table(fleet.Fleet, skip=[model for _, model in FLEET_SECTIONS])
    for name, model in FLEET_SECTIONS:
        yield f"\n## `{name}`\n"
        yield _doc(model) + "\n"
        yield from _table(model, skip=[fleet.Demands])


def page() -> str:
    """The text of docs/recipe.md."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield HEAD
    yield "## Top level"
    yield ""
    yield from _table(recipe.Recipe)
    for name, model in SECTIONS:
        yield f"\n## `{name}`\n"
        yield _doc(model) + "\n"
        yield from _table(model)
        if model is budget.Gates:
            yield GATES
    for kind in registry.KINDS:
        yield f"\n## {kind.capitalize()}s\n"
        for name in registry.names(kind):
            plugin = registry.get(kind, name)
            yield f"### `{name}`\n"
            yield plugin.summary + "\n"
            if plugin.params.model_fields:
                yield from _table(plugin.params)
                yield ""


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The parameter model that a field holds, if it is one with keys of its own."""
    for each in (annotation, *typing.get_args(annotation)):
        plain = isinstance(each, type) and issubclass(each, registry.Params)
        if plain and not issubclass(each, budget.Gate):
            return each
    return None


def _table(
    model: type[BaseModel], prefix: str = "", skip: Sequence[type[BaseModel]] = ()
) -> Iterator[str]:
    whole = model.model_json_schema()
    properties = _properties(whole)
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    # What is a model's own stands before what it shares with others.
    fields = sorted(
        model.model_fields.items(),
        key=lambda each: each[0] not in vars(model).get("__annotations__", {}),
    )
    for name, field in fields:
        about = properties[name]
        default = "required" if field.is_required() else _default(field.default, about)
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_value(about, whole)} | {default} | {meaning} |"
        inner = _inner(field.annotation)
        if inner is not None and inner not in (*dict(SECTIONS).values(), *skip):
            yield from list(_table(inner, f"{prefix}{name}.", skip))[2:]


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    """Of the long form, where a model also has a short one."""
    if "properties" in schema:
        found: dict[str, Any] = schema["properties"]
        return found
    return next(_properties(each) for each in schema["anyOf"] if "properties" in each)


def _default(value: Any, about: dict[str, Any]) -> str:
    if value is None or value in ({}, [], ""):
        return ""
    if isinstance(value, float) and "examples" in about:  # a quantity in its base unit
        example = about["examples"][0]
        unit = example.lstrip("0123456789. ")
        if unit == "%":
            return f"`{100 * value:g} %`"
        if unit == "x" or unit.startswith("/"):
            return f"`{value:g}{unit}`"
        return f"`{units.show_seconds(value)}`"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, list):
        return f"`{', '.join(getattr(each, 'name', str(each)) for each in value)}`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _value(about: dict[str, Any], whole: dict[str, Any]) -> str:
    """A property's schema in a few words."""
    if "$ref" in about:
        name = about["$ref"].rsplit("/", 1)[-1]
        return _value(whole["$defs"][name], whole)
    if "enum" in about:
        return " or ".join(f"`{each}`" for each in about["enum"])
    if "const" in about:
        return f"`{about['const']}`"
    if "examples" in about:
        return f"such as `{about['examples'][0]}`"
    if "anyOf" in about:
        kinds = [_value(each, whole) for each in about["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if about.get("type") == "array":
        return f"list of {_value(about.get('items', {}), whole)}"
    limits = [
        f"{sign} {about[key]:g}"
        for key, sign in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in about
    ]
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true` or `false`",
        "object": "mapping",
    }
    kind = words.get(str(about.get("type")), "name, or name with parameters")
    return ", ".join([kind, *limits])


if __name__ == "__main__":
    main()
