"""From an account to its likely causes, best supported first. Nothing is measured here: each cause
is a function of the numbers in the account."""

from __future__ import annotations

from lepton_compress.accounts import Account, Finding
from lepton_compress.explain.accuracy_causes import ACCURACY
from lepton_compress.explain.speed_causes import SPEED

_EXPLAINED = {
    "calibration_normalised_differently": {"clipped_range", "few_calibration_samples"},
    "channel_order": {"few_calibration_samples", "clipped_range"},
    "few_calibration_samples": {"clipped_range"},
    "signed_activations": {"float_island"},
    "nothing_quantised": {"tied_weight_float", "recurrent_in_float", "overhead"},
}
"""A cause and the findings that it brings about, which would only hide it."""


def diagnose(account: Account) -> tuple[Finding, ...]:
    """The findings, most confident first; of equals, accuracy first."""
    found = [each for cause in (*ACCURACY, *SPEED) if (each := cause(account)) is not None]
    hidden = {name for each in found for name in _EXPLAINED.get(each.cause, ())}
    order = ("accuracy", "portability", "speed", "size")
    kept = [each for each in found if each.cause not in hidden]
    return tuple(sorted(kept, key=lambda each: (-each.confidence, order.index(each.about))))
