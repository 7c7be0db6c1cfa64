"""The processes that train one module together, each on its device, by way of accelerate."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lepton_compress.compress.checkpoint import tensors
from lepton_compress.errors import InputError

if TYPE_CHECKING:
    from lepton_compress.artifacts import Json

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Workers:
    """This process and those it was started with (`accelerate launch`); alone without them.

    The mean over processes of what each computes from its part of a batch is what one process
    would compute from all of it, but for the order of sums.

    Args:
        precision: of the forward pass. "float32", "bfloat16", "float16" (on a GPU alone), or
            "auto": bfloat16 on a GPU that computes in it. On a CPU "auto" is float32: whether
            another pays there would have to be timed, and a result must not depend on a timing.

    Raises:
        InputError: the device does not compute in that precision.
    """

    def __init__(self, precision: str = "auto") -> None:
        self.held = _accelerator()
        self.device: torch.device = self.held.device
        self.count = int(self.held.num_processes)
        self.rank = int(self.held.process_index)
        self.precision, self._why = _precision(precision, self.device.type)
        # A gradient in float16 vanishes unless it is scaled up meanwhile.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def told(self) -> dict[str, Json]:
        """For statistics."""
        kind = self.device.type
        name = torch.cuda.get_device_name(self.device) if kind == "cuda" else kind
        precision = {"value": self.precision, "why": self._why} if self._why else self.precision
        return {"precision": precision, "device": name, "processes": self.count}

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module on its device, with gradients that are means over the processes."""
        if self.count == 1:
            return module.to(self.device)
        from accelerate.utils import DistributedDataParallelKwargs

        # A head that is trained alone, or a branch that a batch does not take, gets no gradient.
        self.held.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        made: nn.Module = self.held.prepare_model(module)
        return made

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """In which to compute the forward pass."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, _TYPES[self.precision])

    def part(self, rows: Tensor) -> Tensor:
        """The rows of a batch that are this process's."""
        return rows[self.rank :: self.count]

    def agreed(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, which all go on with."""
        if self.count == 1:
            return tensor
        from accelerate.utils import broadcast

        made: Tensor = broadcast(tensor.to(self.device)).to(tensor.device)
        return made

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of every process's tensor."""
        if self.count == 1:
            return tensor
        made: Tensor = self.held.reduce(tensor, "mean")
        return made

    def every(self, tensor: Tensor) -> Tensor:
        """Every process's tensor, (processes, ...), on the CPU."""
        given = tensor[None]
        made: Tensor = given if self.count == 1 else self.held.gather(given.to(self.device))
        return made.cpu()

    def alike(self, module: nn.Module) -> None:
        """Give every process the first one's tensors: running statistics have parted."""
        if self.count == 1:
            return
        with torch.no_grad():
            for tensor in tensors(module).values():
                tensor.copy_(self.agreed(tensor))

    def wait(self) -> None:
        """Until every process is here."""
        self.held.wait_for_everyone()


def _accelerator() -> Any:
    from accelerate import Accelerator

    make = functools.partial(Accelerator, cpu=not torch.cuda.is_available())
    try:
        return make(mixed_precision="no")
    except ValueError:  # a training script that calls the library has made its own before
        return make()


def _precision(asked: str, kind: str) -> tuple[str, str]:
    """What to compute in, and why where it was not asked for."""
    if asked == "auto":
        if kind != "cuda":
            return "float32", f"auto on a {kind}"
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU computes in it"
        return "float32", "the GPU does not compute in bfloat16"
    if asked == "float16" and kind != "cuda":
        raise InputError(
            "float16 is trained on a GPU alone",
            where="precision",
            mend="use bfloat16 or float32 here",
        )
    return asked, ""
