"""The options of `cars.py compose`: every key and its default."""

from fvcore.common.config import CfgNode as CN


def compose_defaults() -> CN:
    """The defaults. 0 switches an effect off."""
    cfg = CN()
    cfg.SEED = 0
    # what the samples are, as one of the scenes' classes
    cfg.CATEGORY = "car"
    # of Cityscapes
    cfg.SPLITS = ("train",)
    # the share of the scenes that get new cars; the others go into the export as they are
    cfg.MIX = 0.5
    # cars that such a scene gets, at least and at most; fewer where there is no room
    cfg.CARS = (1, 3)
    # "polygon" works with both values of INPUT.MASK_FORMAT, "rle" is shorter and takes bitmask
    cfg.SEGMENTATION = "polygon"

    cfg.MATTING = CN()
    # the colour that the samples lie on; () for what is noted beside them, or else the source document's green
    cfg.MATTING.KEY = ()
    # alpha from here to there is stretched to 0 to 1; what a GAN draws is never exactly the key colour
    cfg.MATTING.LOW = 0.1
    cfg.MATTING.HIGH = 0.9
    # a sample is left out if the car covers less or more of its picture than these shares
    cfg.MATTING.MIN_COVER = 0.08
    cfg.MATTING.MAX_COVER = 0.98
    # or if more than this share of the car is half transparent
    cfg.MATTING.MAX_FUZZY = 0.5

    cfg.PLACE = CN()
    # scenes from which the size of a car at each distance is learnt
    cfg.PLACE.FIT_SCENES = 300
    cfg.PLACE.TRIES = 40
    # pixels
    cfg.PLACE.MIN_HEIGHT = 12
    # how much a sample may be enlarged
    cfg.PLACE.MAX_ENLARGE = 2.0
    # the least share of a new car that nearer objects leave free
    cfg.PLACE.MIN_VISIBLE = 0.4
    # the largest share of an annotated object that a new car may hide
    cfg.PLACE.MAX_HIDE = 0.6
    # the largest share of the ground under a new car that may already be taken
    cfg.PLACE.MAX_OVERLAP = 0.1
    # where the road is known: the least share of the car's base that is on it
    cfg.PLACE.ON_ROAD = 0.9

    cfg.LOOK = CN()
    # darkness of the shadow under the car, 0 to 1
    cfg.LOOK.SHADOW = 0.5
    # how far the car follows the brightness of its scene, 0 to 1
    cfg.LOOK.LIGHT = 0.7
    return cfg
