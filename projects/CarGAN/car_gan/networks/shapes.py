"""Widths and sides of the layers of a network, from the size of its images."""

from collections.abc import Sequence

from gan_plugin.errors import UserError

_MOST = 8


def check_size(size: int, least: int) -> None:
    """Raise a UserError unless `size` is a power of two, `least` or more."""
    if size < least or size & (size - 1):
        raise UserError(f"INPUT.SIZE is {size}; set it to a power of two, {least} or more, such as 64.")


def rising(width: int, count: int) -> tuple[int, ...]:
    """`count` widths: `width`, twice, four times, eight times as many, and no more from there."""
    return tuple(width * min(2**index, _MOST) for index in range(count))


def check_channels(key: str, channels: Sequence[int], count: int, size: int) -> None:
    """Raise a UserError that names `key` unless there are `count` channels for images of `size` pixels."""
    if len(channels) != count:
        raise UserError(
            f"{key} has {len(channels)} entries, but images of {size} pixels (INPUT.SIZE) need {count}; change one of "
            "them, or leave CHANNELS empty."
        )
