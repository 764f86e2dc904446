"""The slides' random crop: some percent off each side, then back to the size before (section 6)."""

import numpy as np
from detectron2.data import transforms as T


class PercentCrop(T.Augmentation):
    """With a probability cut a random share off each side and resize what is left to the size before.

    Every share is uniform in [0, `share`], so the centre stays as long as `share` is below 0.5. Four independent shares
    change the aspect ratio, of which the slides complain; with `keep_aspect` left and right together lose the same
    share as top and bottom together.
    """

    def __init__(self, prob: float = 0.5, share: float = 0.2, keep_aspect: bool = False) -> None:
        """
        Args:
            prob: of a crop, in [0, 1].
            share: in [0, 0.5).
            keep_aspect: whether width and height shrink alike.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        left, right, top, bottom = self._shares()
        x, y = round(left * width), round(top * height)
        kept = max(1, round((1 - left - right) * width)), max(1, round((1 - top - bottom) * height))
        crop = T.CropTransform(x, y, min(kept[0], width - x), min(kept[1], height - y), width, height)
        return T.TransformList([crop, T.ResizeTransform(crop.h, crop.w, height, width)])

    def _shares(self) -> tuple[float, float, float, float]:
        left, right = self._rand_range(0.0, self.share), self._rand_range(0.0, self.share)
        if not self.keep_aspect:
            return left, right, self._rand_range(0.0, self.share), self._rand_range(0.0, self.share)
        both = left + right
        top = self._rand_range(max(0.0, both - self.share), min(self.share, both))
        return left, right, top, both - top
