"""One picture from its file: bytes (height, width, channels), or an error that names the file."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Literal

from lepton_compress.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pillow

Mode = Literal["rgb", "grey"]
MODES: dict[Mode, str] = {"rgb": "RGB", "grey": "L"}
"""What Pillow calls them."""

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff"}
SUFFIXES |= {".webp"}


def decode(
    data: bytes,
    where: str,
    *,
    mode: Mode = "rgb",
    convert: bool = False,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """A picture as it is stored; a note about its orientation is not followed.

    Args:
        data: of the file, in any format of `SUFFIXES`; the first frame counts.
        where: the file, to name in errors.
        mode, convert, size: as `fitted` takes them.

    Returns:
        uint8 (height, width, 3 or 1).

    Raises:
        InputError: it cannot be read, or has another mode.
        MissingExtraError: Pillow is not installed.
    """
    return fitted(opened(data, where), where, mode=mode, convert=convert, size=size)


def fitted(
    image: Pillow,
    where: str,
    *,
    mode: Mode,
    convert: bool = False,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The bytes of a picture in the mode and size that are wanted.

    Args:
        where: the file, to name in errors.
        mode: three channels, in the order red, green, blue, or one.
        convert: make a picture of another mode into this one: of 16 bits the upper 8 stay, and
            what is transparent lies on black.
        size: height and width to resize to; bilinear, with antialiasing.

    Returns:
        uint8 (height, width, 3 or 1).

    Raises:
        InputError: it has another mode.
    """
    import numpy as np
    from PIL import Image

    if image.mode != MODES[mode]:
        if not convert:
            raise InputError(
                f"has the mode {image.mode}, where {mode} ({MODES[mode]}) is wanted",
                where=where,
                mend="set `mode`, or `convert: true` to convert pictures of other modes",
            )
        image = _converted(image, MODES[mode], where)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    made = np.asarray(image, np.uint8)
    return made if made.ndim == 3 else made[..., None]


def opened(data: bytes, where: str) -> Pillow:
    """A picture as Pillow has it.

    Raises:
        InputError: it cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "reading pictures needs Pillow", mend="pip install 'lepton-compress[images]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of what it then refuses or guesses
            made = Image.open(io.BytesIO(data))
            made.load()
    except Exception as error:  # Pillow raises what each format's reader happens to
        raise InputError(
            f"is no picture that can be read ({error})",
            where=where,
            mend="replace it, or take it out",
        ) from error
    return made


def _converted(image: Pillow, wanted: str, where: str) -> Pillow:
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(
            f"has the mode {image.mode}, values without a known range",
            where=where,
            mend="save it with 8 or 16 bits a channel",
        )
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, (0, 0, 0, 255)), above)
    return image.convert(wanted)
