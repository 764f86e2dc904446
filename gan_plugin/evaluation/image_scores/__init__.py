"""How good sets of generated images are: FID, IS, KID, precision, recall, density and coverage."""

from .extractors import BuiltinExtractor, InceptionExtractor, Lite0Extractor, build_extractor, extractor_label
from .features import Extractor, Features, as_bytes, cached_features, extract
from .measures import frechet_distance, inception_score, kernel_distance, neighbourhoods
from .scores import FEWEST, RELIABLE_COUNT, ImageScores, score

__all__ = [
    "FEWEST",
    "RELIABLE_COUNT",
    "BuiltinExtractor",
    "Extractor",
    "Features",
    "ImageScores",
    "InceptionExtractor",
    "Lite0Extractor",
    "as_bytes",
    "build_extractor",
    "cached_features",
    "extract",
    "extractor_label",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "neighbourhoods",
    "score",
]
