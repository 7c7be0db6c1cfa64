"""What the user writes of a fleet: sites, the links between them, workloads, and what is asked.

The models are the fleet file, its JSON schema and its reference in one. Frozen; unknown keys are
errors; quantities carry their units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lepton_compress.budget import Name, Section, TargetName, Truth
from lepton_compress.document import Document, Key, read_document, show
from lepton_compress.findings import Finding, FindingsError, explain, file_schema, refusal
from lepton_compress.placements import Kind, Leaves
from lepton_compress.registry import Params, nearest
from lepton_compress.units import (
    Bandwidth,
    Duration,
    Factor,
    Percent,
    PerGigabyte,
    PerHour,
    PerKilowattHour,
    PerMonth,
    Power,
    Rate,
    Share,
    Size,
)
from lepton_compress.use import FROM_FILE

KINDS: tuple[Kind, ...] = ("edge", "cloud", "cascade", "split")
Whole = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]


class Estimate(Params):
    """A target that was profiled, to estimate another one from. Short form: its name."""

    target: TargetName = Field(description="As a result calls it.")
    factor: Factor = Field(1.0, description="How many times as long a call takes here.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"target": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(core)]}


_OF_CLOUD, _OF_EDGE = ("replicas", "busy", "workers"), ("count", "overhead")


class Site(Section):
    """Where models can run: a class of equal devices at the edge, or a cloud with replicas."""

    name: Name = Field(description="For the plan.")
    kind: Literal["edge", "cloud"] = Field(description="Whether requests arise or are sent there.")
    target: TargetName = Field(description="The target in the results whose profiles hold here.")
    estimate_from: Estimate | None = Field(
        None,
        description="Where the target was not profiled: the profiled one to estimate its times "
        "from. Every figure that follows is marked as estimated.",
    )
    count: Whole = Field(1, description="How many devices there are (edge).")
    ram: Size | None = Field(None, description="Memory that a model may take.")
    flash: Size | None = Field(None, description="Room for the model's file.")
    overhead: Duration | None = Field(
        None,
        description="What the program around the model takes of each request (edge), as "
        "`measure.py` of a deployment tells it.",
    )
    power: Power | None = Field(None, description="What computing takes beyond idling.")
    price: PerHour | None = Field(
        None, description="Of a replica (a cloud needs it), or of an hour that a device computes."
    )
    replicas: Whole | None = Field(
        None, description="At most so many, of all models together (cloud)."
    )
    busy: Annotated[Percent, Field(gt=0, le=0.97)] = Field(
        0.9, description="Replicas compute for at most this share of the time (cloud)."
    )
    workers: Annotated[int, Field(strict=True, ge=1, le=1024)] = Field(
        1,
        description="Calls that a replica runs at the same time (cloud); more than one need the "
        "profile with as many `callers`.",
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        others = _OF_EDGE if self.kind == "cloud" else _OF_CLOUD
        idle = [name for name in others if name in self.model_fields_set]
        if idle:
            other = "edge" if self.kind == "cloud" else "cloud"
            mend = f"drop it, or make the site `kind: {other}`"
            problem = f"goes with a site of kind {other}"
            raise FindingsError(Finding((name,), problem, mend) for name in idle)
        if self.kind == "cloud" and self.price is None:
            problem = "the key 'price' is missing"
            raise FindingsError([Finding((), problem, "add it, as in `price: 0.40/h`")])
        return self


class Link(Section):
    """Between the devices of a site and a cloud; each device has its own."""

    edge: Name = Field(description="The site of the devices.")
    cloud: Name = Field(description="The site that they reach.")
    round_trip: Duration = Field(description="Mean time of an empty request there and back.")
    spread: Duration | None = Field(None, description="Its standard deviation; none by default.")
    distribution: Literal["gamma", "lognormal", "normal", "uniform"] = Field(
        "gamma", description="Of the round trip, with that mean and spread; never below zero."
    )
    up: Bandwidth = Field(description="From a device to the cloud.")
    down: Bandwidth = Field(description="From the cloud to a device.")
    price: PerGigabyte = Field(0.0, description="Of what crosses, either way.")
    availability: Annotated[Percent, Field(gt=0)] = Field(
        1.0, description="Share of the time in which it is up."
    )


HEADER = 250
"""Bytes beside the arrays of a request or an answer; a test counts them."""


class Payload(Section):
    """What a request takes over the link."""

    up: Size = Field(description="The raw input, as it is sent.")
    down: Size = Field(description="The answer.")
    header: Size = Field(
        HEADER,
        description="What crosses besides, with each request and with each answer; by default what "
        "the exported programs send (headers of HTTP and safetensors, with short names, no token).",
    )

    @property
    def request(self) -> int:
        """Bytes that a request with the raw input takes."""
        return self.up + self.header

    @property
    def answer(self) -> int:
        """Bytes that an answer takes."""
        return self.down + self.header


class LatencyDemand(Params):
    """From a request to its answer, waiting included. Short form: the limit."""

    limit: Duration = Field(description="At most this long.")
    percentile: Annotated[float, Field(ge=1, le=99.9)] = Field(
        99.0, description="In this share of the requests, in per cent."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"limit": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        full = handler(core)
        return {"anyOf": [handler.resolve_ref_schema(full)["properties"]["limit"], full]}


class Demands(Section):
    """What a plan must satisfy. What is not given is not asked for."""

    latency: LatencyDemand | None = Field(None, description="At most this long, as `100 ms`.")
    accuracy: Share | None = Field(
        None, description="At least this value of the metric (at most, of an error)."
    )
    drop: Share | None = Field(
        None, description="At most this much worse than the best original among the results."
    )
    may_leave: Leaves = Field(
        "raw",
        description="What may leave the device: raw input, only features (the values inside the "
        "model), or nothing but answers.",
    )
    offline: Truth = Field(False, description="Requests must be answered while the link is down.")
    availability: Percent | None = Field(
        None, description="At least this share of the requests is answered."
    )
    only: Annotated[list[Kind], Field(min_length=1)] | None = Field(
        None, description="Consider only these kinds of plans."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := list(self._contradictions()):
            raise FindingsError(found)
        return self

    def _contradictions(self) -> Iterator[Finding]:
        asked = set(self.only or KINDS)
        if self.offline and not asked & {"edge", "cascade"}:
            problem = "contradicts `only`: plans of these kinds cannot answer without the link"
            yield Finding(("offline",), problem, "drop one of the two")
        allowed: dict[Leaves, set[Kind]] = {
            "raw": set(KINDS),
            "features": {"edge", "split"},
            "nothing": {"edge"},
        }
        if not asked & allowed[self.may_leave]:
            problem = f"contradicts `only`: they all send more than {self.may_leave}"
            yield Finding(("may_leave",), problem, "drop one of the two")
        if self.accuracy is not None and self.drop is not None:
            problem = "contradicts `accuracy`: both set the least value of one metric"
            yield Finding(("drop",), problem, "give one of the two")


class Workload(Section):
    """Requests for one task, and what is asked of the answers."""

    name: Name = Field(description="For the plan.")
    sites: list[Name] = Field([], description="Where they arise; every edge site by default.")
    results: list[str] = Field(
        [], description="Names of the recipes whose results serve it; all results by default."
    )
    metric: str | None = Field(None, description="What accuracy is; the first metric by default.")
    rate: Rate = Field(description="Requests of one device, on average; a Poisson process.")
    payload: Payload = Field(description="What a request takes over the link.")
    demands: Demands = Field(Demands(), description="What a plan must satisfy.")


_Item = TypeVar("_Item")
Some = Annotated[list[_Item], Field(min_length=1)]


class Fleet(Section):
    """A fleet file."""

    version: Literal[1] = Field(description="Of the format of fleet files.")
    name: Name = Field(description="What the placement is called.")
    description: str = Field("", description="For people.")
    currency: str = Field("", description="What prices are in, for the plan's figures.")
    energy_price: PerKilowattHour = Field(0.0, description="Of the energy that edge sites take.")
    sites: Some[Site] = Field(description="Where models can run.")
    links: list[Link] = Field([], description="Between edge sites and clouds.")
    workloads: Some[Workload] = Field(description="What is to be served.")
    cost: PerMonth | None = Field(None, description="At most this much for everything.")
    prefer: Literal["cheapest", "fastest", "most_accurate"] = Field(
        "cheapest", description="Which of the plans that satisfy all demands to choose."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := [*self._twice(), *self._unlinked(), *self._homeless()]:
            raise FindingsError(found)
        return self

    def of_kind(self, kind: str) -> list[Site]:
        """The sites of a kind."""
        return [site for site in self.sites if site.kind == kind]

    def site(self, name: str) -> Site:
        """The site of that name, which is there: reading checks it."""
        return next(site for site in self.sites if site.name == name)

    def links_of(self, site: str) -> list[Link]:
        """The links of an edge site."""
        return [link for link in self.links if link.edge == site]

    def sites_of(self, workload: Workload) -> list[Site]:
        """The edge sites where a workload's requests arise."""
        return [
            site for site in self.of_kind("edge") if site.name in (workload.sites or [site.name])
        ]

    def _twice(self) -> Iterator[Finding]:
        for key, held in (("sites", self.sites), ("workloads", self.workloads)):
            names = [each.name for each in held]
            for index, name in enumerate(names):
                if name in names[:index]:
                    problem = f"a second one is named {name!r}"
                    yield Finding((key, index, "name"), problem, "give each its own")
        pairs = [(link.edge, link.cloud) for link in self.links]
        for index, pair in enumerate(pairs):
            if pair in pairs[:index]:
                problem = f"a second link from {pair[0]} to {pair[1]}"
                yield Finding(("links", index), problem, "remove one")

    def _unlinked(self) -> Iterator[Finding]:
        for index, link in enumerate(self.links):
            for kind, name in (("edge", link.edge), ("cloud", link.cloud)):
                yield from self._known(("links", index, kind), name, kind)

    def _homeless(self) -> Iterator[Finding]:
        if not self.of_kind("edge"):
            yield Finding(("sites",), "none is of kind edge", "say where requests arise")
        for index, workload in enumerate(self.workloads):
            for number, name in enumerate(workload.sites):
                yield from self._known(("workloads", index, "sites", number), name, "edge")

    def _known(self, key: Key, name: str, kind: str) -> Iterator[Finding]:
        known = [site.name for site in self.of_kind(kind)]
        if name not in known:
            yield Finding(key, f"no site of kind {kind} is named {name!r}", nearest(name, known))


@dataclass(frozen=True)
class FleetFile:
    """A fleet and where it stands."""

    fleet: Fleet
    document: Document | None = None
    path: Path = field(default_factory=Path)

    def where(self, *key: str | int) -> str:
        """How to name a key in an error."""
        return self.document.where(key) if self.document else show(key)


def read_fleet(path: Path) -> FleetFile:
    """Read and check a fleet file.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    document = read_document(path)
    return FleetFile(_checked(document.value, document.where), document, path)


def fleet_from_values(values: Mapping[str, Any]) -> FleetFile:
    """Check a fleet that is already plain values.

    Raises:
        RecipeError: as `read_fleet`.
    """
    return FleetFile(_checked(dict(values), show))


def _checked(values: Any, where: Callable[[Key], str]) -> Fleet:
    try:
        return Fleet.model_validate(values, context=FROM_FILE)
    except ValidationError as error:
        raise refusal(explain(error, Fleet, values), where) from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of a fleet file, for editors and other tools."""
    return file_schema(Fleet, "lepton-compress fleet")
