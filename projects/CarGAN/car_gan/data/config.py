"""The options of `cars.py build`: every key and its default."""

from fvcore.common.config import CfgNode as CN

from car_gan.colour import GREEN


def build_defaults() -> CN:
    """The defaults: the source document's final data set (section 2). 0 or "" switches a filter off."""
    cfg = CN()
    # green_crop | rgba_crop | green_full | rgba_full | context; see car_gan/data/render.py
    cfg.MODE = "green_crop"
    cfg.CATEGORY = "car"
    # red, green, blue of every pixel outside the car
    cfg.KEY = GREEN
    # of Cityscapes
    cfg.SPLITS = ("train", "val", "test")
    # the crop: the detector's box ("predicted") or the one around the mask ("truth")
    cfg.BOX = "predicted"
    # widen it on each side by this share of its longer side
    cfg.PAD = 0.0
    # widen its shorter side to the longer one; what lies outside of the image is the key colour
    cfg.SQUARE = False
    # an object whose mask is unusable is dropped and counted; otherwise the build ends with a sentence
    cfg.SKIP_BROKEN = False

    cfg.DETECTOR = CN()
    # a YAML file, or the name of one in Detectron2's model zoo; "" for no detector
    cfg.DETECTOR.CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
    # a checkpoint; "" for the model zoo's, or else the config's
    cfg.DETECTOR.WEIGHTS = ""
    # a file of recorded scores to use instead of a detector, such as the scores.json of a former build
    cfg.DETECTOR.RECORDED = ""
    # the picture it sees: the car alone on the key colour ("green"), or the scene, matched by IoU ("scene")
    cfg.DETECTOR.RUN_ON = "green"
    # keep a car that is predicted with at least this confidence
    cfg.DETECTOR.MIN_SCORE = 0.9
    # with RUN_ON scene: the least IoU of the predicted box with the one around the mask
    cfg.DETECTOR.MIN_IOU = 0.5
    # index of CATEGORY among the detector's classes; -1 looks it up by name
    cfg.DETECTOR.CLASS = -1

    cfg.FILTER = CN()
    # the least share of the outline that is seen (known for Cityscapes, 1 elsewhere)
    cfg.FILTER.MIN_VISIBLE = 0.0
    # the least share of the seen pixels that hang together: a car cut in two by a pole has about 0.5
    cfg.FILTER.MIN_LARGEST_PART = 0.0
    # drop cars whose outline comes within this many pixels of the image's border
    cfg.FILTER.BORDER = 0
    # pixels seen
    cfg.FILTER.MIN_AREA = 0
    # shorter side of the box in pixels
    cfg.FILTER.MIN_SIDE = 0
    # width / height of the box
    cfg.FILTER.MIN_ASPECT = 0.0
    cfg.FILTER.MAX_ASPECT = 0.0
    # variance of the Laplacian inside the car, its longer side scaled to 64 pixels; grey values from 0 to 1
    cfg.FILTER.MIN_SHARPNESS = 0.0
    # the largest share of the car that the crop may cut off (the predicted box may be too small)
    cfg.FILTER.MAX_CUT = 0.0
    return cfg
