"""How images are packed: decoded once, into arrays that every later run maps into memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PackSettings:
    """How images are packed.

    Attributes:
        size: pixels of the shorter side; larger images are shrunk to it, smaller ones stay as they
            are; 0 leaves all as they are.
        square: cut the central square, of exactly --size pixels, so that all images have one size.
        on_bad_image: an unreadable image is an error with "stop"; with "skip" it stays in the list
            without pixels, and training treats it as it treats an unreadable file.
        max_bad_images: with "skip", stop when more images than this cannot be read.
        workers: processes that decode, as many as processors by default; 0 decodes in this one.
    """

    size: int
    square: bool = False
    on_bad_image: str = "stop"
    max_bad_images: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.size < 0 or (self.square and self.size < 1):
            lowest = "at least 1 for squares" if self.square else "at least 1, or 0 for all pixels"
            raise ValueError(f"--size must be {lowest}, got {self.size}")
        if self.on_bad_image not in ("stop", "skip"):
            raise ValueError(f"--on-bad-image must be stop or skip, got {self.on_bad_image!r}")
        for name in ("max_bad_images", "workers"):
            value = getattr(self, name)
            if value is not None and value < 0:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must be at least 0, got {value}")
