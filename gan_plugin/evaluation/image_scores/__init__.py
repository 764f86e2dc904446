"""How good sets of generated images are: FID, IS, KID, precision, recall, density and coverage."""

from .builtin import BuiltinExtractor
from .features import Extractor, Features, as_bytes, extract
from .inception import InceptionExtractor, build_extractor
from .measures import frechet_distance, inception_score, kernel_distance, neighbourhoods
from .reference import cached_features
from .scores import FEWEST, RELIABLE_COUNT, ImageScores, score

__all__ = [
    "FEWEST",
    "RELIABLE_COUNT",
    "BuiltinExtractor",
    "Extractor",
    "Features",
    "ImageScores",
    "InceptionExtractor",
    "as_bytes",
    "build_extractor",
    "cached_features",
    "extract",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "neighbourhoods",
    "score",
]
