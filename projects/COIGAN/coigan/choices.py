"""The names that a command line may choose from.

What they name takes seconds to import, and a command reads its arguments before.
"""

# of data sets (`data.sources`); "auto" looks at what is there
FORMATS = ("auto", "severstal", "folders", "coco", "cityscapes")
# how images are split into parts (`data.split`)
SPLITS = ("exact", "greedy", "random")
# how a record keeps a mask (`data.regions`)
ENCODINGS = ("rle", "polygons")
# of the preparation (`data.prepare`), in their order
STAGES = ("get", "unpack", "convert", "split", "objects", "base", "tiles")
# of painting without a generator (`augmentation`)
BASELINES = ("copy_paste", "poisson")
# of segmentation (`segmentation.networks`)
NETWORKS = ("unet", "unet_small", "fcn_r50", "fcn_r101", "deeplabv3_r50", "deeplabv3_r101", "deeplabv3_mobilenet")
LOSSES = ("log_cosh_dice", "dice", "bce", "focal", "border")
