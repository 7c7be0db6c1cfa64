"""What a plug-in of kind `runtime` gives back: an artifact, loaded and ready to run.

A runtime is a function `(path: Path, threads: int) -> Runner`. Its module imports without the
runtime's packages; those are named in a module constant `PACKAGES`, so that a measurement can
import them first and tell what they cost from what the model costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from lepton_compress.artifacts import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Runner(Protocol):
    """A loaded artifact.

    Attributes:
        inputs: what it takes, in the artifact's order; dtypes are numpy's names.
        outputs: what it gives, in the artifact's order.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once.

        Args:
            feeds: name to array for every input, each (batch, ...).

        Returns:
            One array for every output, in the order of `outputs`.

        Raises:
            InputError: the runtime refuses the arrays, or fails on them.
        """
