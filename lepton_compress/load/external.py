"""Tensors that stay in files beside an ONNX graph, so that a model larger than memory, or than the
2 GB that one protobuf message holds, is worked on tensor by tensor.

Such a graph is a `Model` with a `folder`: its ModelProto holds small tensors alone, and the others
by the name, offset and length of their bytes in a file of that folder (ONNX's external data).
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.provenance import digest, file_digest

if TYPE_CHECKING:
    import numpy as np
    import onnx

LARGE = 3 * 2**29
"""Bytes of tensors from which a graph is left in its files; a ModelProto ends at 2 GiB."""
_INLINE = 2**16
"""Bytes up to which a tensor stands in the ModelProto: shapes are read from there."""
_ALIGNED = 4096
"""A tensor begins on a page, so that a runtime can map it into memory."""
_CLONE = 0x40049409
"""Linux's request that a file share the blocks of another (FICLONE)."""
FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's name for where a graph that it is given as bytes keeps its tensors."""


def is_large(graph: onnx.ModelProto) -> bool:
    """Whether some of the graph's tensors are in files."""
    from onnx.external_data_helper import uses_external_data

    return any(uses_external_data(tensor) for tensor in tensors(graph.graph))


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor, those of attributes and of branches and loops included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from tensors(attribute.g)
            for inner in attribute.graphs:
                yield from tensors(inner)


def read_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file without its external data, but for tensors of a few numbers.

    Raises:
        ValueError, OSError, DecodeError, ValidationError: it is not valid.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    graph = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(str(path))
    for tensor in tensors(graph.graph):
        if uses_external_data(tensor) and byte_count(tensor) <= _INLINE:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return graph


def byte_count(tensor: onnx.TensorProto) -> int:
    """Bytes that a tensor's numbers take in a file."""
    import math

    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(math.prod(tensor.dims) * kind.itemsize)


def array_of(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """A tensor's numbers, read-only; of one in a file, mapped into memory and read on use.

    Raises:
        ValueError: its file is shorter than the tensor.
    """
    import numpy as np
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    if not uses_external_data(tensor) or folder is None:
        return onnx.numpy_helper.to_array(tensor)
    about = ExternalDataInfo(tensor)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    shape, offset = tuple(tensor.dims), about.offset or 0
    return np.memmap(folder / about.location, kind, "r", offset, shape)


class TensorFile:
    """Writes tensors one after the other into a new file beside a graph.

    Attributes:
        path: of the file; its name is what the tensors refer to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, name: str, array: np.ndarray) -> onnx.TensorProto:
        """The tensor that stands for an array; one of few bytes is held, all others are written."""
        import numpy as np
        import onnx

        if array.nbytes <= _INLINE:
            return onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        offset = -(-self._file.tell() // _ALIGNED) * _ALIGNED
        self._file.seek(offset)
        # By slabs: a mapped array is never whole in memory for this.
        rows = max(1, _SLAB // max(1, array.nbytes // len(array)))
        for start in range(0, len(array), rows):
            slab = np.ascontiguousarray(array[start : start + rows])
            self._file.write(slab.reshape(-1).view(np.uint8).data)
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        made = onnx.TensorProto(name=name, data_type=kind, dims=array.shape)
        made.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (
            ("location", self.path.name),
            ("offset", offset),
            ("length", array.nbytes),
        ):
            made.external_data.add(key=key, value=str(value))
        return made


_SLAB = 2**24


def keep(graph: onnx.ModelProto, source: Path, target: Path) -> None:
    """Write a graph as the ONNX file `target`, its tensors' files beside it.

    A file is cloned where the disk can (Btrfs, XFS), so that it takes no space of its own, else
    copied; one that already lies in the target's folder is renamed. The names depend on nothing but
    the target's name.
    """
    copy = type(graph)()
    copy.CopyFrom(graph)
    names: dict[str, str] = {}
    for entry in _locations(copy):
        if entry.value not in names:
            suffix = f".{len(names)}" if names else ""
            names[entry.value] = f"{target.name}.data{suffix}"
            _place(source / entry.value, target.parent / names[entry.value])
        entry.value = names[entry.value]
    target.write_bytes(copy.SerializeToString(deterministic=True))


def beside(path: Path) -> list[Path]:
    """The files of tensors of an ONNX file that `keep` wrote."""
    return sorted(path.parent.glob(f"{path.name}.data*"))


def fingerprint(graph: onnx.ModelProto, folder: Path) -> str:
    """Digest of a graph and of the bytes of its tensors, wherever they are and are called."""
    copy = type(graph)()
    copy.CopyFrom(graph)
    for entry in _locations(copy):
        stat = (folder / entry.value).stat()
        entry.value = _digest(folder / entry.value, stat.st_mtime_ns, stat.st_size)
    return digest(copy.SerializeToString(deterministic=True).hex())


@functools.lru_cache(maxsize=64)
def _digest(path: Path, changed: int, size: int) -> str:
    return file_digest(path)


def _locations(graph: onnx.ModelProto) -> Iterator[Any]:
    """The entries of external tensors that name their files."""
    from onnx.external_data_helper import uses_external_data

    for tensor in tensors(graph.graph):
        if uses_external_data(tensor):
            yield from (entry for entry in tensor.external_data if entry.key == "location")


def _place(source: Path, target: Path) -> None:
    if source.resolve().parent == target.resolve().parent:
        source.rename(target)
        return
    # Not a hard link, which onnx takes for an attack and refuses in both places.
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
        return
    shutil.copyfile(source, target)
