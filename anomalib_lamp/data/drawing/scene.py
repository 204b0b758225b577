"""What the drawing of a part hands to its defects, and what a part and a defect are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.random import Generator

from .tools import Array


@dataclass(frozen=True)
class Scene:
    """A drawn part, ``size`` pixels square; lengths are in image widths, from the image's centre.

    A part with defects of its own adds to a subclass what they need, for example a function that draws the same part
    once more with a flaw.

    Args:
        image: Colours ``(3, size, size)``, about 0 to 1.
        part: Where the part is, ``(size, size)``, 1 on it and 0 beside it.
    """

    image: Array
    part: Array


@dataclass(frozen=True)
class PiecesScene(Scene):
    """A part with pieces that can be missing.

    Args:
        beneath: The image without those pieces.
        spots: ``(K, 3)``: x, y and radius of the pieces.
    """

    beneath: Array
    spots: Array


class Defect(NamedTuple):
    """A kind of defect.

    Args:
        draw: Returns the changed image ``(3, size, size)`` and the defect's coverage ``(size, size)``; it takes the
            scene of the parts that name this defect.
        largest: Largest fraction of the image that the defect covers.
    """

    draw: Callable[[Generator, Any], tuple[Array, Array]]
    largest: float = 0.1


class Part(NamedTuple):
    """A kind of part.

    Args:
        draw: Draws a good part, with the given number of pixels along each side.
        defects: The part's defects by name.
    """

    draw: Callable[[Generator, int], Scene]
    defects: dict[str, Defect]
