"""The terms that crops, weights, samples and composed scenes inherit from their source."""

CITYSCAPES = (
    "Derived from Cityscapes (cityscapes-dataset.com/license): non-commercial use only, and the data may not be "
    "passed on. The same holds for crops, weights, samples and scenes made from it."
)
TOY = "Made from procedurally drawn toy scenes, in which nobody else has rights."
COCO = (
    "Made from a data set in COCO's format. COCO's own annotations are under CC BY 4.0, its photographs under the "
    "terms of their owners on Flickr; for another data set its own terms hold."
)
STANFORD = "Derived from Stanford Cars (Krause et al. 2013): for research only; the photographs belong to their owners."
FOLDER = "Made from a folder of pictures whose terms are not known here; ask their owner before you pass anything on."
