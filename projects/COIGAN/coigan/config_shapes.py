"""Config keys of the second game, SWAGAN on masks or base tiles (Gal et al. 2021, arXiv 2102.06108)."""

from detectron2.config import CfgNode as CN


def shapes_defaults() -> CN:
    """SHAPES, which shapes-train reads."""
    shapes = CN()
    # SWAGAN's latent, mapping layers and channels
    shapes.STYLE_SIZE = 512
    shapes.MAPPING_LAYERS = 8
    shapes.WIDTH = 512
    shapes.CHANNEL_MULTIPLIER = 2
    # "masks" learns the masks of one class, "base" the base tiles
    shapes.SOURCE = "masks"
    # the index of the class whose masks are learnt, and how many of them a tile holds
    shapes.CLASS = 0
    shapes.COUNTS = (1, 3)
    shapes.MAX_ITER = 800000
    shapes.IMS_PER_BATCH = 32
    # Adam; rate and betas are corrected for the lazy regularisers (Karras et al. 2020, appendix B)
    shapes.LR = 0.002
    shapes.BETAS = (0.0, 0.99)
    # probability of two latents in one image
    shapes.MIXING = 0.9
    # gamma of R1, with the paper's 1/2
    shapes.R1 = 10.0
    shapes.R1_EVERY = 16
    shapes.PATH_LENGTH = 2.0
    shapes.PATH_EVERY = 4
    # the path length takes this part of a batch
    shapes.BATCH_SHRINK = 2
    shapes.EMA_DECAY = 0.5 ** (32 / 10000)
    return shapes
