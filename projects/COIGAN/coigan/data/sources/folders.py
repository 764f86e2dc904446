"""A folder of images and one of masks of the same names, one class (as Conglomerate Concrete Crack has it)."""

from pathlib import Path

from coigan.data.images import images_in
from coigan.data.regions import Region, components
from gan_plugin.data.masks import read_mask
from gan_plugin.errors import UserError

from .base import check_pictures


class FolderSource:
    """An object is a connected part of what is inside a mask; see `read_mask` for the forms that one may have.

    Args:
        folder: with images/ and masks/; a mask has its image's path below them, whatever the suffix.
        class_name: of the one class.

    Raises:
        UserError: a folder or the mask of an image is missing, or two masks fit.
    """

    def __init__(self, folder: str | Path, class_name: str = "defect") -> None:
        self.classes = (class_name,)
        self._root = Path(folder) / "images"
        self.images = images_in(self._root)
        masks: dict[Path, Path] = {}
        for path in images_in(Path(folder) / "masks"):
            key = path.relative_to(Path(folder) / "masks").with_suffix("")
            if key in masks:
                raise UserError(f"{path} and {masks[key]} are masks of one image; remove one of them.")
            masks[key] = path
        self._masks = []
        for image in self.images:
            mask = masks.get(image.relative_to(self._root).with_suffix(""))
            if mask is None:
                raise UserError(f"The image {image} has no mask of its name in {Path(folder) / 'masks'}; add one.")
            self._masks.append(mask)
        check_pictures(self.images)

    def name(self, number: int) -> str:
        """The path below images/ with underscores between its parts."""
        return "_".join(self.images[number].relative_to(self._root).parts)

    def has_objects(self, number: int) -> bool:
        """Whether the mask has a pixel inside."""
        return bool(read_mask(self._masks[number]).any())

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The connected parts of the mask.

        Raises:
            UserError: the mask has another size than the image, or it is not clear what is inside.
        """
        mask = read_mask(self._masks[number])
        if mask.shape != (height, width):
            raise UserError(
                f"The mask {self._masks[number]} is {mask.shape[1]}x{mask.shape[0]} pixels but its image "
                f"{width}x{height}; export one of them again."
            )
        return components(mask, 0)
