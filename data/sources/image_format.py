"""Pictures as arrays, by Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

SUFFIXES = frozenset({"bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"})
"""Names of files that are taken for pictures, lower case, without the dot."""

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageForm:
    """What pictures are brought into."""

    size: tuple[int, int] | None = None
    """Height and width; None leaves each as large as it is."""
    mode: str = "RGB"
    """Pillow's name: "RGB" gives [H, W, 3], "L" [H, W], "RGBA" [H, W, 4], all uint8."""

    def decode(self, content: bytes) -> np.ndarray:
        """A picture as an array. Raises ValueError, with the reason, if it is damaged or none."""
        try:
            with Image.open(io.BytesIO(content)) as opened:
                image: Image.Image = opened
                if self.size is not None:
                    # JPEG can be decoded at 1/2, 1/4 or 1/8, which spares most of the work where that is large enough.
                    opened.draft(None, (self.size[1], self.size[0]))
                if image.mode != self.mode:
                    image = image.convert(self.mode)
                if self.size is not None and image.size != (self.size[1], self.size[0]):
                    image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
                return np.asarray(image)
        except _DAMAGED as error:
            raise ValueError(f"the picture cannot be decoded: {error}") from error

    def shape(self, content: bytes) -> tuple[int, ...]:
        """The shape that `decode` gives, from the picture's head alone. Raises ValueError as it does."""
        try:
            with Image.open(io.BytesIO(content)) as image:
                height, width = self.size or (image.height, image.width)
                bands = len(Image.new(self.mode, (1, 1)).getbands())
                return (height, width) if bands == 1 else (height, width, bands)
        except _DAMAGED as error:
            raise ValueError(f"the picture cannot be decoded: {error}") from error


def encode_image(pixels: np.ndarray, suffix: str) -> bytes:
    """An array [H, W], [H, W, 3] or [H, W, 4] uint8 as a picture of the format that `suffix` names."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    return file.getvalue()
