"""One test image: as it is, with its truth, with what a run predicted, and where the two differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gan_plugin.data.pictures import read_rgb

from . import panels
from .embed import photo
from .panels import Instance

_ZOOMS = 3


class Scene:
    """Draws the pictures of one image, all of the same size."""

    def __init__(self, record: dict[str, Any], classes: Sequence[str], longest: int = 896) -> None:
        """
        Args:
            record: of the image, as Detectron2 keeps it; its file can be read.
            classes: names of the labels.
            longest: pixels of the pictures' longer side.
        """
        self.truth = panels.instances_of_record(record)
        self.pixels = read_rgb(record["file_name"])
        self._classes, self._longest = classes, longest
        self._picture = panels.scale(self.pixels, longest)

    def image(self) -> dict[str, str]:
        """The image as it is."""
        return photo(self._picture, "The image as it is.", "Image")

    def annotated(self) -> dict[str, str]:
        """The image under its annotated masks."""
        count = len(self.truth)
        drawn = self._drawn(self.truth, range(count), [self.name(instance) for instance in self.truth])
        caption = f"Truth: {count} {'object' if count == 1 else 'objects'}"
        return photo(drawn, f"The image with {count} annotated masks.", caption)

    def predicted(self, found: Sequence[Instance], caption: str) -> dict[str, str]:
        """The image under predicted masks; an object and the prediction that matches it share a colour."""
        order = {partner: index for index, (partner, _) in panels.match(self.truth, found).items()}
        others = sorted(set(range(len(found))) - set(order))
        order |= {index: len(self.truth) + k for k, index in enumerate(others)}
        texts = [f"{self.name(instance)} {instance.score:.2f}" for instance in found]
        drawn = self._drawn(found, [order[i] for i in range(len(found))], texts)
        return photo(drawn, f"The image with {len(found)} predicted masks.", caption)

    def difference(self, found: Sequence[Instance], whose: str = "") -> dict[str, str]:
        """Where the predictions (of `whose` run, if it matters) differ from the truth, pixel by pixel."""
        pairs = len(panels.match(self.truth, found))
        counts = f"{pairs} matched, {len(self.truth) - pairs} missed, {len(found) - pairs} invented"
        differing = panels.scale(panels.difference(self.truth, found, self.pixels.shape[:2]), self._longest)
        text = f"Difference{f' of {whose}' if whose else ''}: {counts}"
        return photo(panels.draw_difference(self._picture, differing), f"{text}.", text)

    def zooms(self, found: Sequence[Instance]) -> list[dict[str, str]]:
        """Close-ups of where the outlines of the largest matched objects differ most."""
        matches = panels.match(self.truth, found)
        largest = sorted(matches, key=lambda index: -self.truth[index].mask.sum())[:_ZOOMS]
        pictures = []
        for index in largest:
            truth, (partner, iou) = self.truth[index], matches[index]
            zoom = panels.boundary_zoom(self.pixels, truth.mask, found[partner].mask)
            pictures.append(photo(zoom, f"Outlines of a {self.name(truth)}.", f"{self.name(truth)}, IoU {iou:.2f}"))
        return pictures

    def name(self, instance: Instance) -> str:
        """Of its class."""
        return self._classes[instance.label] if instance.label < len(self._classes) else str(instance.label)

    def _drawn(self, instances: Sequence[Instance], numbers: Sequence[int], texts: Sequence[str]) -> np.ndarray:
        masks = [panels.scale(instance.mask, self._longest) for instance in instances]
        colours = [panels.INSTANCE_COLOURS[number % len(panels.INSTANCE_COLOURS)] for number in numbers]
        return panels.draw_instances(self._picture, masks, texts, colours)
