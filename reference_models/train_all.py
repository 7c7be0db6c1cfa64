"""Make every reference model again: `python -m reference_models.train_all [--check] [NAME...]`.

Each is compared with the card that is there: what is measured now must lie within its intervals.
With `--check` the weights and cards stay as they are. Exit code 1 if one lies outside, 2 if its
data or a package is missing.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lepton_compress.errors import UserError
from reference_models import card

SCRIPTS = {
    "digits_cnn": "train",
    "mnist_cnn": "train",
    "resnet8": "train",
    "mobilenet_v1_025": "train",
    "efficientnet_lite0": "measure",
    "keyword_dscnn": "train",
    "keyword_gru": "train",
    "keyword_lstm": "train",
    "text_cnn": "train",
    "sentiment_transformer": "train",
    "dense_autoencoder": "train",
}
"""Folder to the script in it. A new model gets its line here."""
HERE = Path(__file__).parent


def main() -> None:
    """Train those that are named, or all."""
    names = [each for each in sys.argv[1:] if each != "--check"] or list(SCRIPTS)
    if unknown := [name for name in names if name not in SCRIPTS]:
        raise SystemExit(f"unknown model {unknown[0]}; known are {', '.join(SCRIPTS)}")
    code = 0
    for name in names:
        start = time.perf_counter()
        try:
            found = list(trained(name, check="--check" in sys.argv))
        except (UserError, ModuleNotFoundError) as error:
            print(f"{name}: {error}", flush=True)
            code = 2
            continue
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        for line, right in found:
            print(f"  {line}", flush=True)
            code = code if right else max(code, 1)
    raise SystemExit(code)


def trained(name: str, *, check: bool) -> Iterator[tuple[str, bool]]:
    """Train one; yields what to say of each metric, and whether it is as the card says.

    Args:
        name: of its folder.
        check: leave that folder as it is.
    """
    script = importlib.import_module(f"reference_models.{name}.{SCRIPTS[name]}")
    before = card.read(HERE / name) if (HERE / name / card.FILES[1]).is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if check else HERE / name
        script.main(folder)
        after = card.read(folder)
    for title, made in after.items():
        held = {(each.split, each.metric): each for each in before[title].measured} if (
            title in before
        ) else {}  # fmt: skip
        for each in made.measured:
            wanted = held.get((each.split, each.metric))
            low, high = wanted.interval if wanted else (0.0, 1.0)
            right = low <= each.value <= high
            said = "within" if right else "OUTSIDE"
            line = f"{title}, {each.split}: {each.metric} {each.value:.4f}"
            yield f"{line}, {said} {low:.4f} to {high:.4f}", right


if __name__ == "__main__":
    main()
