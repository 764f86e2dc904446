"""Images with the union of their objects' masks, from a COCO JSON."""

import json
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from coigan.data.sources.coco import decode_segmentation
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


class CocoMasks(Dataset):
    """(3, H, W) float images in [0, 1] and (H, W) float masks, 1 where any object is."""

    def __init__(self, path: str | Path, images: str | Path = "") -> None:
        """
        Args:
            path: of the JSON.
            images: folder of the pictures; "" for the JSON's own folder and its `images` folder.

        Raises:
            UserError: the file is missing or no COCO JSON of instances.
        """
        self.path = Path(path)
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self._images = [
                (int(r["id"]), r["file_name"], int(r["height"]), int(r["width"])) for r in content["images"]
            ]
            self._objects: dict[int, list] = {}
            for record in content["annotations"]:
                self._objects.setdefault(int(record["image_id"]), []).append(record["segmentation"])
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); name a COCO JSON.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no COCO JSON of instances ({type(error).__name__}: {error}).") from error
        if not self._images:
            raise UserError(f"{path} lists no image; name another COCO JSON.")
        self._folders = [Path(images)] if images else [self.path.parent, self.path.parent / "images"]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        key, name, height, width = self._images[number]
        file = self._file(name)
        pixels = read_rgb(file)
        mask = np.zeros((height, width), bool)
        for segmentation in self._objects.get(key, []):
            mask |= decode_segmentation(segmentation, height, width)
        if pixels.shape[:2] != mask.shape:
            raise UserError(f"{file} has another size than {self.path} says; write the JSON again.")
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return image, torch.from_numpy(mask).float()

    def pictures(self) -> set[Path]:
        """The files, resolved.

        Raises:
            UserError: one of them is missing.
        """
        return {self._file(name).resolve() for _, name, _, _ in self._images}

    def _file(self, name: str) -> Path:
        found = [folder / name for folder in self._folders if (folder / name).is_file()]
        if not found:
            raise UserError(f"{self.path} names the image {name}, which is not in {self._folders[0]}; name its folder.")
        return found[0]
