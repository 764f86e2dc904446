"""The two sets of classes that Cityscapes can be used with."""

from cityscapesscripts.helpers.labels import labels

from gan_plugin.errors import UserError

# in the order of Cityscapes' label table, which Detectron2 and the official evaluation share
EIGHT = tuple(label.name for label in labels if label.hasInstances and not label.ignoreInEval)
TEN = tuple(label.name for label in labels if label.hasInstances and label.id >= 0)
# by the area of COCO's small and medium objects
_SMALL, _MEDIUM = 32**2, 96**2


def class_preset(number: int) -> tuple[str, ...]:
    """The 10 classes of the slides, or the 8 of the official benchmark, which leaves caravan and trailer out.

    Raises:
        UserError: another number.
    """
    presets = {len(EIGHT): EIGHT, len(TEN): TEN}
    if number not in presets:
        raise UserError(f"data.classes is {number}; set it to 10 as in the slides, or 8 as in the official benchmark.")
    return presets[number]


def size_of(area: float) -> str:
    """COCO's small, medium or large of an area in square pixels."""
    return "small" if area < _SMALL else "medium" if area < _MEDIUM else "large"
