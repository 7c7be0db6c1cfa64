"""Trained weights into a freshly built module: safetensors, or a torch checkpoint read without
unpickling code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.errors import InputError

if TYPE_CHECKING:
    import torch

_NESTED = ("state_dict", "model_state_dict", "model", "weights", "ema_state_dict")
_UNTRUSTED = "Unsupported global"
"""What torch says of anything in a pickle that is neither a tensor nor plain data."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def load_weights(module: torch.nn.Module, path: Path, *, trust_pickle: bool) -> None:
    """Load a file of weights into a module, in place.

    Prefixes that wrappers add to every name (`module.` of DataParallel, `_orig_mod.` of
    torch.compile, ...) are taken off if the names fit then.

    Raises:
        InputError: the file is missing, unreadable, needs a pickle that is not trusted, or its
            names or shapes do not fit.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path), mend="paths are relative to the recipe")
    state = _read(path, trust_pickle=trust_pickle)
    state = _fit(state, set(module.state_dict()))
    wanted = module.state_dict()
    state |= _tied(wanted, state)
    missing = sorted(set(wanted) - set(state))
    extra = sorted(set(state) - set(wanted))
    wrong = [
        f"{name} is {list(state[name].shape)} in the file, {list(wanted[name].shape)} in the model"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    said = [f"missing: {_few(missing)}"] if missing else []
    said += [f"not in the model: {_few(extra)}"] if extra else []
    said += [_few(wrong)] if wrong else []
    if said:
        raise InputError(
            f"the weights do not fit the model ({'; '.join(said)})",
            where=str(path),
            mend="check model.args, or that the file belongs to this factory",
        )
    module.load_state_dict(state)


def _tied(
    wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """For names that the file lacks, what it has under another name of the same tensor: a file of
    safetensors holds tied weights once."""

    def place(tensor: torch.Tensor) -> tuple[Any, ...]:
        return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype

    known = {place(held): name for name, held in wanted.items() if held.numel() and name in state}
    return {
        name: state[known[place(held)]]
        for name, held in wanted.items()
        if name not in state and held.numel() and place(held) in known
    }


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _fit(state: dict[str, torch.Tensor], wanted: set[str]) -> dict[str, torch.Tensor]:
    """The state dict with wrappers' prefixes removed, if that makes more names fit."""
    if not state:
        return state
    best = shorter = state
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in shorter)), ""):
        shorter = {name.removeprefix(prefix): value for name, value in shorter.items()}
        # Wrappers may stand in one another, so that only the last removal makes names fit.
        if len(wanted & set(shorter)) > len(wanted & set(best)):
            best = shorter
    return best


def _read(path: Path, *, trust_pickle: bool) -> dict[str, torch.Tensor]:
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded: Any = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"not a safetensors file ({error})", where=str(path)) from error
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
        except Exception as error:  # unpickling raises what the file makes it raise
            if isinstance(error, pickle.UnpicklingError) and _UNTRUSTED in str(error):
                raise InputError(
                    "holds pickled objects beside tensors, which can run code when loaded",
                    where=str(path),
                    mend="save the state dict as safetensors, or pass --trust-pickle if it is "
                    "your own",
                ) from error
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise InputError(
                f"not a torch checkpoint ({said[:100].rstrip(': ')})",
                where=str(path),
                mend="save it again",
            ) from error
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    while isinstance(loaded, Mapping):
        inner = next((loaded[n] for n in _NESTED if isinstance(loaded.get(n), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise InputError(
            "holds no state dict",
            where=str(path),
            mend="save model.state_dict(), or put it under the key 'state_dict'",
        )
    return {str(name): value for name, value in loaded.items()}
