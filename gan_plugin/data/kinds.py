"""All that can be the matter with a file of annotations, in words; see `Kind`."""

from .findings import Grade, Kind

_CORRECT = "correct or remove it"

# the file, its lists, images and categories
UNREADABLE = Kind(Grade.REFUSED, "the file cannot be read", "name a COCO JSON")
NO_JSON = Kind(Grade.REFUSED, "this is not valid JSON", "export it again")
NO_COCO = Kind(
    Grade.REFUSED, "this is no COCO JSON, which is an object with images, annotations and categories", "export it again"
)
NO_LIST = Kind(Grade.REFUSED, "the list is missing, or is no list", "add it")
NO_IMAGES = Kind(Grade.REFUSED, "there are no images", "add them")
NO_CATEGORIES = Kind(Grade.REFUSED, "there are no categories", "list those of the annotations")
NO_FOLDER = Kind(Grade.REFUSED, "its folder of images does not exist", "name the one that the file is about")
ENCODING = Kind(
    Grade.REPAIRED, "the file begins with a byte order mark or is not in UTF-8", "it was read as what it is"
)
NO_OBJECT = Kind(Grade.REFUSED, "the entry is no object", _CORRECT)
BAD_OBJECT = Kind(Grade.BAD, "the annotation is no object", _CORRECT)
ID_FORM = Kind(Grade.REFUSED, "the id is missing or no whole number", "give it one of its own")
ID_TWICE = Kind(Grade.REFUSED, "the id is there twice", "give every entry an id of its own")
ANNOTATION_TWICE = Kind(Grade.BAD, "the id is there twice", "give every annotation an id of its own")
ID_TYPE = Kind(Grade.REPAIRED, "an id is a text or a decimal number", "it was made a whole number")
RENUMBERED = Kind(
    Grade.REPAIRED, "the id is 0, missing or no whole number above it, which COCO's AP takes for no object",
    "all annotations were numbered from 1",
)  # fmt: skip
NO_NAME = Kind(Grade.REFUSED, "the name is missing or no text", "add it")
NAME_TWICE = Kind(Grade.REFUSED, "the name is there twice", "give every category a name of its own, or merge the two")
NAME_TYPE = Kind(Grade.REPAIRED, "the name is a number", "it was taken as text")
FILE_TWICE = Kind(Grade.REFUSED, "the file_name is there twice", "merge the two images, or name another file")
BACKSLASHES = Kind(Grade.REPAIRED, "the file_name has backslashes", "they were taken for slashes")
SIZE_FORM = Kind(Grade.REFUSED, "width and height are not whole numbers above 0", "write those of the picture")
SIZE_TYPE = Kind(Grade.REPAIRED, "width or height are not written as whole numbers", "they were made so")
SIZE_MADE = Kind(Grade.REPAIRED, "there is no width and height", "they were taken from the picture")
NO_SUCH_IMAGE = Kind(Grade.BAD, "the image_id is that of no image", _CORRECT)
NO_SUCH_CATEGORY = Kind(Grade.BAD, "the category_id is that of no category", "list the category, or correct it")
CROWD_FORM = Kind(Grade.BAD, "iscrowd is neither 0 nor 1", "correct it")
CROWD_MADE = Kind(Grade.REPAIRED, "there is no iscrowd, or it is not written as a number", "none was taken for 0")
AREA_MADE = Kind(Grade.REPAIRED, "there is no usable area", "it was taken from the mask, or else from the box")
IGNORED = Kind(Grade.BAD, "Detectron2 does not know what `ignore` means", "remove it, or use iscrowd")
IGNORE_FORM = Kind(Grade.REPAIRED, "`ignore` is no number", "it was taken for 0")
KEYPOINTS_FORM = Kind(Grade.BAD, "the keypoints are not numbers [x, y, visibility, ...]", "correct or remove them")
NO_TRUTH = Kind(Grade.REPAIRED, "there is no list of annotations", "predictions are written, but nothing is measured")
NO_MASKS = Kind(Grade.REFUSED, "no annotation has a mask", "add them, or train boxes alone with MODEL.MASK_ON False")
MASK_UNUSED = Kind(Grade.REPAIRED, "there is no sound mask", "boxes do without, as MODEL.MASK_ON is False")

# masks and boxes
NO_MASK = Kind(Grade.BAD, "there is no mask", "draw it or remove the annotation")
# the same where a training could do without
NO_MASK_TO_TRAIN_ON = Kind(
    NO_MASK.grade,
    NO_MASK.what,
    f"{NO_MASK.way_out}, or let such objects teach class and box alone with MODEL.GAN.MASK.BOX_ONLY True",
)
BOXES_ALONE = Kind(
    Grade.REPAIRED, "objects have no mask", "they teach class and box, as MODEL.GAN.MASK.BOX_ONLY is True"
)
NO_FORM = Kind(
    Grade.BAD,
    "the mask is neither polygons [[x, y, x, y, ...], ...] nor run lengths {size, counts}",
    "write it in one of these forms",
)
NESTED = Kind(Grade.BAD, "a polygon is not a flat list of numbers [x, y, x, y, ...]", "write it so")
NO_NUMBER = Kind(Grade.BAD, "a coordinate is no finite number", _CORRECT)
ODD = Kind(Grade.BAD, "a polygon has an odd number of coordinates", _CORRECT)
FEW_POINTS = Kind(Grade.BAD, "a polygon has fewer than three points", _CORRECT)
FEW_POINTS_BESIDE = Kind(
    Grade.REPAIRED, "a polygon beside sound ones has fewer than three points, so no area", "it was left out"
)
FAR = Kind(
    Grade.BAD, "a coordinate lies farther outside of the picture than the picture is large", "correct it to pixels"
)
OUTSIDE = Kind(Grade.BAD, "the object lies outside of the picture", _CORRECT)
EMPTY = Kind(Grade.BAD, "the mask covers no pixel", "draw it anew or remove it")
FLAT = Kind(Grade.REPAIRED, "mask or box have no area", "Detectron2 does not train on such objects")
RUNS_SIZE = Kind(Grade.BAD, "the run lengths are of another size than the picture", "encode them anew")
RUNS_BROKEN = Kind(Grade.BAD, "the run lengths cannot be decoded to that size", "encode them anew")
NO_BOX = Kind(Grade.BAD, "there is neither a box nor a mask", "add the box")
BOX_FORM = Kind(Grade.BAD, "the box is not four finite numbers [x, y, width, height]", _CORRECT)
BOX_NEGATIVE = Kind(Grade.BAD, "the box has a negative width or height", "write it as [x, y, width, height]")
BOX_CORNERS = Kind(
    Grade.BAD, "the box is [x0, y0, x1, y1], going by its mask", "write it as [x, y, width, height], as COCO defines it"
)
BOX_ELSEWHERE = Kind(Grade.BAD, "the box is not around its mask", "correct one of them")
BOX_MADE = Kind(Grade.REPAIRED, "there is no box, or one without area", "it was taken from the mask")
RUNS_SIZE_TYPE = Kind(Grade.REPAIRED, "the size of run lengths is not written as whole numbers", "it was made so")

# what a user's own function returns
FUNCTION = Kind(Grade.REFUSED, "the function that is registered for it fails", "correct it")
IMAGE_ID_MADE = Kind(Grade.REPAIRED, "there is no image_id", "it was made from the place of the record")
ANNOTATIONS_MADE = Kind(Grade.REPAIRED, "there is no list of annotations", "it was taken for empty")
CLASS_FORM = Kind(Grade.BAD, "the category_id is not the number of a class", "count classes from 0")
BOX_MODE = Kind(Grade.BAD, "bbox_mode is neither BoxMode.XYXY_ABS nor BoxMode.XYWH_ABS", "set it to what the box is")
ARRAY = Kind(Grade.REPAIRED, "the mask is an array", "it was encoded as run lengths, which evaluators take as well")
NO_CLASSES = Kind(
    Grade.REFUSED, "its metadata have no thing_classes", "set them with MetadataCatalog.get(name).thing_classes = [...]"
)

# data sets and the model
NO_PATH = Kind(Grade.REFUSED, "it needs a path that does not exist", "put the data there, or point to where they are")
NOTHING = Kind(Grade.REFUSED, "there is no annotated object", "name another data set, or annotate this one")
NOTHING_TO_TRAIN_ON = Kind(
    Grade.REFUSED,
    "there is nothing to train on, as no object is annotated",
    "name another data set, or annotate this one",
)
NUMBER_OF_CLASSES = Kind(
    Grade.REFUSED, "its number of classes is not that of the model", "set the key to the number of classes"
)
OTHER_CLASSES = Kind(
    Grade.REFUSED, "its classes are not those of the training set", "give both the same classes in the same order"
)
MATCHED = Kind(
    Grade.REPAIRED, "its category ids are not those of the training set", "the categories were matched by name"
)
PRESET_CLASSES = Kind(
    Grade.REFUSED,
    "its metadata give other thing_classes than the categories of its file, in the order of their ids",
    "take them out of the metadata",
)
RUNS_AS_POLYGONS = Kind(
    Grade.REPAIRED,
    'a mask is run lengths, which INPUT.MASK_FORMAT "polygon" does not take',
    'INPUT.MASK_FORMAT was set to "bitmask"',
)
