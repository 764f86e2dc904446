"""Which images a study trains on, tunes on and is judged on."""

from collections.abc import Mapping
from typing import Annotated, Any

from cityscapesscripts.helpers.labels import labels
from pydantic import Field

from gan_plugin.errors import UserError
from gan_plugin.rules import check_name

from ..schema import Section, Text, Whole, unknown_key, validated

# the two sets of classes, in the order of Cityscapes' label table, which Detectron2 and the official evaluation share
EIGHT = tuple(label.name for label in labels if label.hasInstances and not label.ignoreInEval)
TEN = tuple(label.name for label in labels if label.hasInstances and label.id >= 0)

PARTS = ("train", "val", "test", "small_train", "small_val")
_FIRST_EIGHT = ("aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt", "hamburg")


class Part(Section):
    """Where the images of one part come from.

    Attributes:
        dataset: a registered data set; "" for Cityscapes' folders.
        split: "train" or "val", a folder of leftImg8bit.
        cities: of that split; () for all.
        images: how many, spread evenly over the file names; 0 for all.
    """

    dataset: Text = ""
    split: Text = ""
    cities: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    images: Annotated[Whole, Field(ge=0)] = 0


# The slides give only the numbers of images (sections 3, 4 and 6); these are the cities whose numbers fit exactly:
# train 1403, val 326, reduced 154 and 59. Our inference, which `study.py run` checks against the slides' statistics.
SEED002 = {
    "train": Part(split="train", cities=_FIRST_EIGHT),
    "val": Part(split="val", cities=("frankfurt", "lindau")),
    "test": Part(split="val", cities=("munster",)),
    "small_train": Part(split="train", cities=("cologne",)),
    "small_val": Part(split="val", cities=("lindau",)),
}
# tuned on the same small cities, judged on the whole official validation set, whose truth is public
OFFICIAL = {
    "train": Part(split="train"),
    "val": Part(split="val"),
    "test": Part(split="val"),
    "small_train": Part(split="train", cities=("cologne",)),
    "small_val": Part(split="train", cities=("aachen",), images=59),
}
PRESETS = {"seed002": SEED002, "official": OFFICIAL}
# images of the parts in the slides; those of the test part are not given
SEED002_IMAGES = {"train": 1403, "val": 326, "test": 174, "small_train": 154, "small_val": 59}


# part -> most instances in an image, images without any (section 1)
SEED002_STATISTICS = {"train": (120, 3), "val": (66, 8), "test": (46, 0)}


def class_preset(number: int) -> tuple[str, ...]:
    """The 10 classes of the slides, or the 8 of the official benchmark, which leaves caravan and trailer out.

    Raises:
        UserError: another number.
    """
    presets = {len(EIGHT): EIGHT, len(TEN): TEN}
    if number not in presets:
        raise UserError(f"data.classes is {number}; set it to 10 as in the slides, or 8 as in the official benchmark.")
    return presets[number]


def parse_parts(preset: str, entries: Mapping[str, Any]) -> dict[str, Part]:
    """The parts that the `data` section of a study describes.

    Args:
        preset: of PRESETS; "" for none.
        entries: some of PARTS, each the name of a registered data set or a mapping with the fields of `Part`. They go
            over those of the preset. Without `small_train` and `small_val` the whole `train` and `val` are searched on;
            without `test` the `val` is judged on.

    Raises:
        UserError: a name or a field is unknown, or a part is missing.
    """
    parts: dict[str, Part] = dict(PRESETS[check_name("data.preset", preset, PRESETS)] if preset else {})
    for name, entry in entries.items():
        if name not in PARTS:
            raise unknown_key("data.parts", name, PARTS)
        parts[name] = _parse_part(name, entry)
    for name in ("train", "val"):
        if name not in parts:
            raise UserError(f"data.parts lacks {name!r}; name a registered data set, or set data.preset.")
    parts.setdefault("test", parts["val"])
    parts.setdefault("small_train", parts["train"])
    parts.setdefault("small_val", parts["val"])
    return {name: parts[name] for name in PARTS}


def _parse_part(name: str, entry: Any) -> Part:
    part = Part(dataset=entry) if isinstance(entry, str) else validated(Part, entry, f"data.parts.{name}")
    if bool(part.dataset) == bool(part.split):
        raise UserError(f"data.parts.{name} needs either `dataset` or `split`.")
    return part


def seed002_differences(images: Mapping[str, int], most: Mapping[str, int], empty: Mapping[str, int]) -> list[str]:
    """Sentences about what differs from the slides' numbers; none if the inference of the cities holds.

    Args:
        images, most, empty: part -> images, most instances in one image, images without any.
    """
    said = [
        f"{part} has {images[part]} images, not {count}"
        for part, count in SEED002_IMAGES.items()
        if images[part] != count
    ]
    for part, (wanted_most, wanted_empty) in SEED002_STATISTICS.items():
        if (most[part], empty[part]) != (wanted_most, wanted_empty):
            said.append(
                f"{part} has at most {most[part]} instances in an image and {empty[part]} images without any, not "
                f"{wanted_most} and {wanted_empty}"
            )
    return [f"This is not the slides' split, which we only infer: {sentence}." for sentence in said]


def check_leaks(images: Mapping[str, Mapping[str, str]], allowed: bool) -> list[str]:
    """Refuse to judge on what was trained or tuned on, or on pictures taken next to it.

    Args:
        images: part -> {image id: its city, or "" where there is none}.
        allowed: `data.allow_leaks`; say it in a sentence instead. The official preset leaks, since the truth of the
            official test set is not public.

    Returns:
        Those sentences.

    Raises:
        UserError: two parts that must be apart share an image or a city.
    """
    roles = {"training": ("train", "small_train"), "tuning": ("val", "small_val"), "judging": ("test",)}
    members: dict[str, dict[str, str]] = {
        role: {image: city for part in parts for image, city in images[part].items()} for role, parts in roles.items()
    }
    notes = []
    for first, second in (("training", "judging"), ("training", "tuning"), ("tuning", "judging")):
        both = sorted(members[first].keys() & members[second].keys())
        cities = sorted(set(members[first].values()) & set(members[second].values()) - {""})
        if not both and not cities:
            continue
        what = f"{len(both)} images, such as {both[0]}," if both else f"Pictures of {', '.join(cities)}"
        sentence = f"{what} are used both for {first} and for {second}"
        if not allowed:
            raise UserError(f"{sentence}; keep the parts of the study's data apart, or set data.allow_leaks to True.")
        notes.append(f"{sentence}, which flatters the scores.")
    return notes
