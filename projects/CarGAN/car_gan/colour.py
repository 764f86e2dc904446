"""The key colour: what every pixel outside a car is set to."""

from collections.abc import Sequence

from gan_plugin.errors import UserError

Colour = tuple[int, int, int]

# the source document's bright green, section 2
GREEN: Colour = (51, 255, 51)


def checked_colour(values: Sequence[int]) -> Colour:
    """`values` as three whole numbers of red, green and blue.

    Raises:
        UserError: they are not three whole numbers from 0 to 255.
    """
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise UserError(
            f"The key colour {tuple(values)} is not three whole numbers from 0 to 255; write (51, 255, 51)."
        )
    return values[0], values[1], values[2]
