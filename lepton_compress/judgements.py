"""What `gate` gives back: verdicts on a result that was measured before."""

from __future__ import annotations

from dataclasses import dataclass, field

from lepton_compress.artifacts import Status, Verdict


@dataclass(frozen=True)
class Judgement:
    """An existing result, judged.

    Attributes:
        result: the file or folder that was judged.
        recipe, started: of the run that made it.
        budget: the file that it was judged by; empty for the gates of the run itself.
        against: the earlier result that it was compared with; empty for none.
        measured_again: whether latency was measured again, on this machine.
        verdicts: on what ships: the artifact chosen for each target, or the candidates asked for.
        places: gate to the file and line that sets it, where that is known.
    """

    result: str
    recipe: str
    started: str
    passed: bool
    verdicts: tuple[Verdict, ...]
    budget: str = ""
    against: str = ""
    measured_again: bool = False
    notes: tuple[str, ...] = ()
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def bad(self) -> tuple[Verdict, ...]:
        """The verdicts that do not let the artifact through."""
        return tuple(each for each in self.verdicts if each.status is not Status.PASS)
