"""Where the user's data lies, and whether it is what was meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lepton_compress.errors import InputError
from lepton_compress.provenance import file_digest

VARIABLE = "LEPTON_DATA"
"""Environment variable: a folder in which to look for data that does not lie beside the recipe."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
"""In hexadecimal."""


def locate(given: str, folder: Path, sha256: str | None = None) -> Path:
    """The file or folder that a loader was given: relative to the recipe's folder, else to
    `LEPTON_DATA`.

    Args:
        sha256: that a file must have, in hexadecimal.

    Raises:
        InputError: it lies in neither, or its SHA-256 is another.
    """
    looked = [folder / given]
    place = os.environ.get(VARIABLE)
    if place:
        looked.append(Path(place) / given)
    path = next((each for each in looked if each.exists()), None)
    if path is None:
        mend = f"put it there, or set {VARIABLE} to the folder that holds it"
        said = " or ".join(str(each) for each in looked)
        raise InputError(f"no such file or folder: {said}", where=given, mend=mend)
    if sha256 is not None:
        if not path.is_file():
            raise InputError("is a folder, of which no SHA-256 is known", where=str(path))
        if (found := file_digest(path)) != sha256.lower():
            raise InputError(
                f"has the SHA-256 {found[:16]}..., where {sha256[:16].lower()}... was expected",
                where=str(path),
                mend="fetch it again, or drop the checksum if the other file is meant",
            )
    return path
