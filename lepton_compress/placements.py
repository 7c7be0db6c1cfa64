"""What a placement says: where each workload's model runs, what that is expected to cost, what else
there was and why it lost. Frozen values, apart from whoever makes or shows them.

    Cut -> Plan -> Placed -> Placement

Times are in seconds, sizes in bytes, costs in the fleet's currency a month.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lepton_compress.artifacts import Idle

Kind = Literal["edge", "cloud", "cascade", "split"]
Leaves = Literal["raw", "features", "nothing"]
Provenance = Literal["measured", "simulated", "estimated"]


@dataclass(frozen=True)
class Cut:
    """An artifact in two halves: the first runs at the edge, the second in the cloud.

    Attributes:
        candidate, format: of the whole.
        name: of the tensor that crosses, or of several, joined by commas.
        bytes: that cross for one sample.
        edge_target, cloud_target: the targets that the halves were measured on.
        edge_seconds, cloud_seconds: of one call of each half, at the shares in
            `artifacts.QUANTILES`; a single number where no more is known.
        edge_idle, cloud_idle: of calls of each half after rests; empty where that is not known.
        edge_bytes: of the first half's file.
        edge_memory: the first half's peak memory, or None where it is not known.
        accuracy_drop: how much worse the halves are than the whole; 0 where they compose to it.
        provenance: of the times.
        result: the recipe's name of the result that the whole belongs to.
        features: what crosses is no raw input, in whatever form.
    """

    candidate: str
    format: str
    name: str
    bytes: int
    edge_target: str
    cloud_target: str
    edge_seconds: tuple[float, ...]
    cloud_seconds: tuple[float, ...]
    edge_bytes: int = 0
    edge_memory: int | None = None
    accuracy_drop: float = 0.0
    provenance: Provenance = "measured"
    result: str = ""
    features: bool = True
    edge_idle: tuple[Idle, ...] = ()
    cloud_idle: tuple[Idle, ...] = ()


@dataclass(frozen=True)
class Variant:
    """An artifact that a plan uses.

    Attributes:
        result: the recipe's name of the result that it is of.
        target: the target whose profile counts.
        provenance: of its times there.
    """

    result: str
    candidate: str
    format: str
    target: str
    provenance: Provenance = "measured"

    @property
    def name(self) -> str:
        """As `result:candidate`, with the format where that is not ONNX."""
        said = f"{self.result}:{self.candidate}"
        return said if self.format == "onnx" else f"{said} ({self.format})"


@dataclass(frozen=True)
class Cascade:
    """How the edge decides what it sends up.

    Attributes:
        threshold: the least calibrated confidence with which the edge's answer stands.
        temperature: that the edge's logits are divided by before the softmax.
        share: of the requests that go up, on the samples that it was not chosen on.
        share_interval: its 95 % interval.
        gain_kept: how much of the cloud's gain in accuracy over the edge is kept on these samples;
            None where the cloud gains nothing.
        samples: that it was reported on.
    """

    threshold: float
    temperature: float
    share: float
    share_interval: tuple[float, float]
    gain_kept: float | None
    samples: int


@dataclass(frozen=True)
class Plan:
    """One way to serve a workload at a site, and what is expected of it.

    Attributes:
        kind: where the model runs.
        edge, cloud: the artifacts; None on a side that computes nothing.
        cloud_site: the name of the site that serves what goes up; empty where nothing does.
        cascade: the rule, of a cascade.
        cut: of a split.
        latency: seconds from a request to its answer while the link is up, waiting included, by
            percentile: "p50", "p90", "p99" and the one that is asked for.
        utilization: busy share of one edge device, and of the uplink of one.
        accuracy: the workload's metric, with its 95 % interval.
        accuracy_down: the metric of the edge's own answers while the link is down; None where
            there are none.
        up, down: bytes a device sends and receives in a month.
        cost: a month of all devices, replicas left out: `cost_link`, `cost_energy`.
        leaves: what leaves the site: "nothing", "features" or "raw".
        availability: share of the time in which requests are answered.
        provenance: the weakest of what the times are made of; the plan itself is always computed.
    """

    kind: Kind
    edge: Variant | None
    cloud: Variant | None
    cloud_site: str
    cascade: Cascade | None
    cut: Cut | None
    latency: dict[str, float]
    edge_utilization: float
    link_utilization: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_down: float | None
    up: float
    down: float
    cost_link: float
    cost_energy: float
    leaves: Leaves
    availability: float
    provenance: Provenance

    @property
    def name(self) -> str:
        """What it is, in a few words."""
        if self.kind == "edge" and self.edge:
            return f"edge: {self.edge.name}"
        if self.kind == "cloud" and self.cloud:
            return f"cloud {self.cloud_site}: {self.cloud.name}"
        if self.kind == "split" and self.edge and self.cut:
            return f"split at {self.cut.name}: {self.edge.name}, rest on {self.cloud_site}"
        low, high = (each.name if each else "" for each in (self.edge, self.cloud))
        share = f"{100 * self.cascade.share:.1f} %" if self.cascade else "some"
        return f"cascade: {low}, {share} up to {high} on {self.cloud_site}"


@dataclass(frozen=True)
class RunnerUp:
    """The best plan of another kind or with other artifacts, and why it lost.

    Attributes:
        binds: the demand that it breaks: "latency", "accuracy", "privacy", "offline", "cost",
            "memory", "capacity", ...; empty where it meets all and is beaten by the chosen one.
        cost: a month, the replicas that it would need alone included; None where no number of
            replicas meets the demand.
    """

    plan: Plan
    binds: str
    reason: str
    cost: float | None


@dataclass(frozen=True)
class Placed:
    """The plan of one workload at one site class.

    Attributes:
        devices: how many there are.
        rate: requests a second of one device.
        percentile: that the latency demand is about, as "p99"; `limit` is its seconds, or None.
        metric: what `Plan.accuracy` is of.
        plan: what is chosen; None where nothing meets every demand.
        replicas_cost: its part of what the replicas cost a month, by the requests it sends.
        left_out: kinds of plans that could not be considered, and why.
    """

    workload: str
    site: str
    devices: int
    rate: float
    percentile: str
    limit: float | None
    metric: str
    plan: Plan | None
    replicas_cost: float
    runners_up: tuple[RunnerUp, ...]
    left_out: tuple[str, ...] = ()

    @property
    def cost(self) -> float:
        """A month of all devices."""
        if self.plan is None:
            return 0.0
        return self.plan.cost_link + self.plan.cost_energy + self.replicas_cost


@dataclass(frozen=True)
class Pool:
    """Replicas of one artifact (or of one half) in a cloud, which requests queue up for together.

    Attributes:
        rate: requests a second of all that use it.
        servers: calls that run at the same time, over all replicas.
        utilization: busy share of them.
        wait: seconds of waiting, by percentile.
        cost: a month.
    """

    site: str
    variant: Variant
    part: str
    rate: float
    replicas: int
    servers: int
    utilization: float
    wait: dict[str, float]
    cost: float


@dataclass(frozen=True)
class Change:
    """Where the answer turns: with one number changed and all else as it is.

    Attributes:
        workload, site: whose plan turns.
        of: what is changed, as it stands behind a value: "round trip", "for a replica".
        now, at: its value in the fleet file, and the one at which the plan turns.
        direction: "below" or "above" `at`.
        plan: what is chosen beyond; empty where nothing meets the demands there.
        said: the same in words.
    """

    workload: str
    site: str
    of: str
    now: float
    at: float
    direction: Literal["below", "above"]
    plan: str
    said: str


@dataclass(frozen=True)
class Relief:
    """The least change of one demand or limit alone that makes a plan possible.

    `to` is None where no change of this one alone does.
    """

    workload: str
    site: str
    demand: str
    now: float | None
    to: float | None
    said: str


@dataclass(frozen=True)
class Simulated:
    """A discrete-event simulation of one workload's traffic beside what was computed.

    Attributes:
        requests: that were simulated, those of the warm-up left out.
        computed, simulated: seconds by percentile.
        worst: the largest relative difference of the two.
    """

    workload: str
    site: str
    requests: int
    computed: dict[str, float]
    simulated: dict[str, float]
    worst: float


@dataclass(frozen=True)
class Map:
    """What is chosen over round trip and bandwidth, for a picture.

    Attributes:
        round_trips, bandwidths: seconds, and bits a second, of the columns and the rows.
        cells: [row][column] index into `names`; -1 where nothing meets the demands.
        now: the round trip and the bandwidth of the fleet file.
    """

    workload: str
    site: str
    round_trips: tuple[float, ...]
    bandwidths: tuple[float, ...]
    cells: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    now: tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """What `place` found.

    Attributes:
        feasible: whether every demand is met.
        cost: a month, of everything; None where it is not feasible.
        reliefs: where it is not feasible, what would have to give.
        notes: what a reader must know, as what was estimated or left out.
        results: the files or folders that it was planned from.
    """

    fleet: str
    prefer: str
    currency: str
    feasible: bool
    cost: float | None
    placed: tuple[Placed, ...]
    pools: tuple[Pool, ...]
    seconds: float
    changes: tuple[Change, ...] = ()
    maps: tuple[Map, ...] = ()
    reliefs: tuple[Relief, ...] = ()
    simulated: tuple[Simulated, ...] = ()
    notes: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
