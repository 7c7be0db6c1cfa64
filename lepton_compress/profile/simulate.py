"""What artifacts would take on a device that is not here, by a runtime that simulates it.

Nothing is measured: a compiler or an interpreter tells the same of the same file each time. Its
figures are marked as simulated; a time is its own interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress import registry
from lepton_compress.artifacts import Fit, Observer, Profile
from lepton_compress.catalogue import Limits
from lepton_compress.errors import LeptonError, MissingExtraError, PluginError
from lepton_compress.profile.restrict import restricted
from lepton_compress.recipe import TargetSpec
from lepton_compress.registry import Plugin
from lepton_compress.targets import listing
from lepton_compress.units import show_bytes

if TYPE_CHECKING:
    from lepton_compress.profile.lanes import Subject

TIME = "p50"
"""What an estimate of the time is kept as."""


def simulate(
    subjects: Sequence[Subject], *, baseline: str, target: TargetSpec, observer: Observer
) -> list[Profile]:
    """A profile of every subject on a target whose runtime simulates.

    Args:
        subjects: the artifacts, in formats that the runtime loads.
        baseline: the candidate that ratios are to.
        target: with the runtime's parameters, and the limits of the device.
        observer: where to report progress.

    Returns:
        In the order of the subjects; one that does not fit has failed, with the reason.

    Raises:
        MissingExtraError: what simulates is not installed.
        PluginError: the runtime gives no `Fit`.
    """
    plugin, params = registry.get("runtime", target.runtime), target.bound()
    found = []
    with observer.work(f"simulate {target.name}", len(subjects)) as progress:
        for subject in subjects:
            found.append(_profile(plugin, params, subject, target))
            progress.advance()
    bases = {each.format: each.latency[TIME] for each in found if _is_base(each, baseline)}
    return [_compared(each, bases.get(each.format)) for each in found]


def exceeded(fit: Fit, limits: Limits) -> str:
    """What of a device an artifact takes too much of; empty where it fits."""
    said = []
    for name, taken, limit in (("RAM", fit.ram, limits.ram), ("flash", fit.flash, limits.flash)):
        if limit is not None and taken is None:
            said.append(f"how much {name} it takes is not told, of {limit:,} bytes")
        elif limit is not None and taken is not None and taken > limit:
            said.append(
                f"takes {taken:,} bytes of {name}, the device has {limit:,} "
                f"({show_bytes(taken)} of {show_bytes(limit)})"
            )
    return " and ".join(said)


def _profile(
    plugin: Plugin, params: registry.Params, subject: Subject, target: TargetSpec
) -> Profile:
    fit, reason = None, ""
    try:
        fit = plugin.call(Path(subject.path), params)
    except (MissingExtraError, PluginError):
        raise
    except LeptonError as error:
        reason = str(error)
    if fit is not None and not isinstance(fit, Fit):
        where = f"runtime {plugin.name} ({plugin.origin})"
        raise PluginError(f"returned {type(fit).__name__}, not a Fit", where=where)
    if fit is not None and (target.operators or target.dtypes):
        fit = restricted(
            fit,
            listing.operators(Path(subject.path)),
            operators=target.operators,
            dtypes=target.dtypes,
            alone=plugin.alone,
        )
    if fit is not None:
        reason = fit.problem or exceeded(fit, target.limits)
    timed = fit is not None and not reason and fit.seconds is not None
    seconds = fit.seconds if fit is not None and timed else None
    return Profile(
        candidate=subject.candidate,
        format=subject.format,
        target=target.name,
        runtime=target.runtime,
        status="failed" if reason else "measured",
        provenance="simulated",
        batch=target.batch,
        threads=target.threads,
        latency={} if seconds is None else {TIME: seconds},
        interval={} if seconds is None else {TIME: (seconds, seconds)},
        reason=reason,
        fit=fit,
    )


def _is_base(profile: Profile, baseline: str) -> bool:
    return profile.candidate == baseline and bool(profile.latency)


def _compared(profile: Profile, base: float | None) -> Profile:
    """With the ratio to the baseline's time, where both have one."""
    if base is None or not profile.latency:
        return profile
    ratio = profile.latency[TIME] / base
    return replace(profile, ratio=ratio, ratio_interval=(ratio, ratio))
