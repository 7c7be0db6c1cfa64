"""The preprocessing `text`: UTF-8 to numbers of tokens, by a tokenizer file, on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from lepton_compress.artifacts import TensorSpec
from lepton_compress.budget import Name
from lepton_compress.errors import InputError
from lepton_compress.load.files import locate
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.registry import Params, plugin


class Text(Params):
    """How texts become numbers."""

    input: Name | None = Field(None, description="Of the model; its only one by default.")
    tokenizer: str = Field(
        description="A tokenizer.json as the package `tokenizers` writes it, beside the recipe or "
        "in `LEPTON_DATA`. It travels with the artifact."
    )
    length: Annotated[int, Field(strict=True, ge=1, le=65_536)] = Field(
        description="Tokens of a sample: longer texts are cut, shorter ones filled up."
    )
    pad: str = Field("[PAD]", description="Token to fill up with.")


@plugin("preprocessing", "text", Text)
def text(params: Text, raw: TensorSpec, folder: Path) -> Preprocessing:
    """Numbers of tokens, int64 (length), of texts in UTF-8; done before the artifact, on the host.

    Raw samples are uint8 (bytes), filled up with zeros.

    Raises:
        MissingExtraError: the package `tokenizers` is not installed.
        InputError: the raw samples are of another type, or the file is no tokenizer.
    """
    from lepton_compress.preprocess.tokens import Tokens

    if raw.dtype != "uint8" or len(raw.shape) != 2:
        raise InputError(
            f"takes UTF-8 as uint8 in one row, not {raw.dtype} {list(raw.shape[1:])}",
            where="preprocess: text",
            mend="the loader `text` gives them",
        )
    path = locate(params.tokenizer, folder)
    tokens = Tokens(path, params.length, params.pad)
    made = TensorSpec(raw.name, "int64", ("batch", params.length))
    about = {"kind": "text", "tokenizer": path.name, "length": params.length, "pad": params.pad}
    about |= {"bytes": raw.shape[1]}
    return Preprocessing(tokens.apply, None, made, about, (path,), tokens.notes)
