"""Pages to look at: a hostile one, a large one, and a reader of HTML."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

from lepton_compress.artifacts import (
    Choice,
    Corrupted,
    Front,
    Group,
    OperatorTime,
    RunResult,
    StepRecord,
    Trial,
    Tuning,
)
from tests.report.results import profile, result

ATTACKS = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "'><svg onload='window.hacked = 1'>",
    "</style></script></title><script>window.hacked = 1</script>",
    "{{ 777 * 777 }}{% raw %}",
    "&lt;b&gt; &amp; javascript:alert(1)",
)
EVIL = " ".join(ATTACKS)

VOID = {"meta", "input", "img", "br", "hr", "link", "base"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list[Element]:
        """Every element of that tag below."""
        found = [child for child in self.children if tag in ("*", child.tag)]
        return [*found, *(each for child in self.children for each in child.all(tag))]

    def says(self) -> str:
        """Its text and that of all below."""
        return self.text + "".join(child.says() for child in self.children)


class Reader(HTMLParser):
    """Builds a tree; an end tag that does not fit is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


def read(page: str) -> Element:
    """The tree of a page, which must be well-formed."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root], f"{reader.open[-1].tag} is not closed"
    return reader.root


def hostile() -> RunResult:
    """A result in which every text that comes from outside is an attack."""
    name = ATTACKS[1]
    held = result((EVIL,))
    record = StepRecord(
        EVIL,
        {EVIL: EVIL},
        1.0,
        True,
        False,
        {
            EVIL: EVIL,
            "weighted": {"integer": {EVIL: EVIL}, EVIL: [EVIL]},
            "sqnr_db": {EVIL: 3.0},
            "ranges": {EVIL: [0, 1]},
        },
        (EVIL,),
    )
    scores = tuple(
        replace(s, candidate=name if s.candidate == "int8" else "baseline", metric=EVIL)
        for s in held.scores
    )
    renamed = {
        "artifacts": tuple(
            replace(a, candidate=name if a.candidate == "int8" else "baseline", path=EVIL)
            for a in held.artifacts
        ),
        "verdicts": tuple(
            replace(v, candidate=name, target=EVIL, gate=EVIL, reason=EVIL) for v in held.verdicts
        ),
    }
    return replace(
        held,
        recipe=EVIL,
        candidates=(
            held.candidates[0],
            replace(held.candidates[1], id=name, history=(record,)),
        ),
        scores=scores,
        profiles=(
            profile("baseline", EVIL, 1.0, runtime=EVIL),
            profile(
                name,
                EVIL,
                0.5,
                runtime=EVIL,
                operators=(OperatorTime(EVIL, EVIL, 1, 1e-3, 1.0),),
                tuning=Tuning(
                    {EVIL: EVIL}, 0.9, (0.8, 1.0), (Trial({EVIL: EVIL}, 1, 0.9, None, 1.0, True),)
                ),
            ),
        ),
        parities=(),
        chosen=(Choice(EVIL, name, "onnx", EVIL, False),),
        fronts=(Front(EVIL, (EVIL,), ((name, "onnx"),)),),
        behaviours=(
            replace(
                held.behaviours[1],
                candidate=name,
                groups=(Group("slice", EVIL, EVIL, 3, 0.5, 0.1, (0.0, 0.2)),),
                corrupted=(Corrupted(EVIL, 1, EVIL, 3, 0.5, 0.1, None),),
                reason=EVIL,
            ),
        ),
        coverages=(replace(held.coverages[1], candidate=name),),
        notes=(EVIL,),
        started=EVIL,
        recipe_digest=EVIL,
        environment={
            "python": EVIL,
            "system": EVIL,
            "cpu": {"name": EVIL, "cores": EVIL, "extensions": [EVIL]},
            "libraries": {EVIL: EVIL},
            "recipe.yaml": EVIL,
        },
        **renamed,  # type: ignore[arg-type]
    )


def large(variants: int = 40, nodes: int = 600, samples: int = 20_000) -> RunResult:
    """A result of many variants of a deep model on many samples."""
    held = result(parities=())
    weighted = {f"backbone/stage/block/layer_{i}/Conv": "QLinearConv" for i in range(nodes)}
    ranges = {name: [-1.5, 2.5] for name in weighted}
    record = StepRecord(
        "quantize", {}, 1.0, True, False, {"weighted": {"integer": weighted}, "ranges": ranges}
    )
    behaviour = replace(
        held.behaviours[1],
        groups=tuple(
            replace(held.behaviours[1].groups[0], name=str(number)) for number in range(100)
        ),
    )
    names = ["baseline", *(f"variant-{i}" for i in range(variants))]
    base, other = held.scores
    right, wrong = (1.0,) * samples, (0.0, 1.0) * (samples // 2)
    return replace(
        held,
        candidates=tuple(
            replace(held.candidates[1], id=name, history=(record,) * 3) for name in names
        ),
        artifacts=tuple(replace(held.artifacts[1], candidate=name) for name in names),
        scores=(
            replace(base, outcomes=right),
            *(replace(other, candidate=name, outcomes=wrong) for name in names[1:]),
        ),
        behaviours=tuple(replace(behaviour, candidate=name) for name in names),
        coverages=tuple(replace(held.coverages[1], candidate=name) for name in names),
        profiles=tuple(profile(name, "edge", 1 - i / 100) for i, name in enumerate(names)),
        verdicts=tuple(
            replace(held.verdicts[0], candidate=name, gate=gate)
            for name in names
            for gate in ("drop", "size", "latency", "parity")
        ),
        labels=tuple(i % 100 for i in range(samples)),
    )
