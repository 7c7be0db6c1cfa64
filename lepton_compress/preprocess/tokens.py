"""Texts to numbers of tokens, by the package `tokenizers` (extra `text`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lepton_compress.errors import InputError, MissingExtraError

WHERE = "preprocess: text"
_SHOWN = 40


class Tokens:
    """A tokenizer with a length.

    Args:
        path: the tokenizer.json.
        length: tokens of a sample.
        pad: the token to fill up with.

    Raises:
        MissingExtraError: the package is not installed.
        InputError: the file is no tokenizer, or has no such token.
    """

    def __init__(self, path: Path, length: int, pad: str) -> None:
        self._tokenizer = _opened(path)
        number = self._tokenizer.token_to_id(pad)
        if number is None:
            raise InputError(
                f"has no token {pad!r} to fill up with", where=str(path), mend="name it by `pad`"
            )
        self.pad, self.length = number, length
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self._unknown = None if unknown is None else self._tokenizer.token_to_id(unknown)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {each for each in added if added[each].special} - {self._unknown}
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length)

    def encode(self, text: str, what: str = "the text") -> list[int]:
        """The numbers of one text, at most `length`.

        Args:
            what: to name in errors.

        Raises:
            InputError: there is no token in it, or none but unknown ones.
        """
        numbers: list[int] = self._tokenizer.encode(text).ids
        real = [each for each in numbers if each not in self._special]
        if not real or all(each == self._unknown for each in real):
            shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
            said = "holds no token" if not real else "holds only unknown tokens"
            raise InputError(
                f"{what} {said}: {shown}",
                where=WHERE,
                mend="give text of the kind that the tokenizer was made for",
            )
        return numbers

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """uint8 (samples, bytes) to int64 (samples, length).

        Raises:
            InputError: a sample is no UTF-8, or as `encode`.
        """
        made = np.full((len(raw), self.length), self.pad, np.int64)
        for row, sample in enumerate(raw):
            numbers = self.encode(decoded(sample, row), f"sample {row}")
            made[row, : len(numbers)] = numbers
        return made

    def notes(self, raw: np.ndarray) -> tuple[str, ...]:
        """What the tokenizer does not know of samples, if there is any."""
        if self._unknown is None:
            return ()
        made = self.apply(raw)
        real = int((made != self.pad).sum())
        unknown = int((made == self._unknown).sum())
        if not unknown:
            return ()
        share = 100 * unknown / real
        return (f"{share:.2g} % of the texts' tokens are unknown to the tokenizer",)


def decoded(sample: np.ndarray, row: int) -> str:
    """The text of uint8 (bytes), without the zeros at its end."""
    try:
        return sample.tobytes().rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise InputError(f"sample {row} is not UTF-8 at byte {error.start}", where=WHERE) from error


def _opened(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(
            f"texts need tokenizers ({error})",
            where=WHERE,
            mend="pip install 'lepton-compress[text]'",
        ) from error
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the package raises Exception itself
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"is no tokenizer ({said[:100]})",
            where=str(path),
            mend="give a tokenizer.json as the package `tokenizers` writes it",
        ) from error
