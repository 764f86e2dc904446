"""Seeded, disjoint subsets of any registered data set: A and B to train on, eval to compare models with.

The two players may learn from different images (the masks of A, the real samples of B), and a small fixed set is
enough to follow the AP while training.
"""

import copy
import difflib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from gan_plugin.errors import UserError

SUBSET_SUFFIXES = ("a", "b", "eval")
DEFAULT_SIZES = {"a": 300, "b": 300, "eval": 50}

Record = dict[str, Any]
Sizes = Mapping[str, int] | Sequence[int]


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` items out in proportion to `sizes` by largest remainder; the shares add up to `total` exactly."""
    whole = sum(sizes)
    if whole <= 0 or min(sizes) < 0:
        raise UserError(f"The subset sizes {list(sizes)} are not usable; give numbers >= 0, at least one of them > 0.")
    shares = [size * total // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(sizes[i] * total % whole))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _none_empty(shares: list[int], sizes: Sequence[int]) -> list[int]:
    """The shares with one item taken from the largest for each that was asked for and got none."""
    filled = list(shares)
    for i, size in enumerate(sizes):
        largest = max(range(len(filled)), key=lambda j: filled[j])
        if size > 0 and filled[i] == 0 and filled[largest] > 1:
            filled[largest] -= 1
            filled[i] = 1
    return filled


def draw_subsets(
    names: Iterable[str], seed: int, sizes: Mapping[str, int], use_all: bool = False
) -> dict[str, list[str]]:
    """Draw disjoint subsets of `names` that depend on nothing but the set of names, the seed and the sizes.

    Args:
        names: what to draw from; order and repetitions do not matter.
        seed: of the shuffle. The global random states are not touched.
        sizes: subset name -> number of names. Scaled down in proportion when there are fewer names than that,
            but for one name at least each.
        use_all: also scale up, so that every name is used exactly once.

    Returns:
        Subset name -> sorted names.

    Raises:
        UserError: there are fewer names than subsets.
    """
    pool = sorted(set(names))
    wanted = list(sizes.values())
    shares = _none_empty(apportion(wanted, len(pool) if use_all else min(len(pool), sum(wanted))), wanted)
    if any(want > 0 and share == 0 for want, share in zip(wanted, shares, strict=True)):
        raise UserError(f"{len(pool)} images are too few to be split into {dict(sizes)}; add images.")
    random.Random(seed).shuffle(pool)
    subsets, start = {}, 0
    for name, share in zip(sizes, shares, strict=True):
        subsets[name] = sorted(pool[start : start + share])
        start += share
    return subsets


# name -> the loader under it, of what the two functions below have registered
_registered: dict[str, Callable[[], list[Record]]] = {}


def replace_registration(name: str, loader: Callable[[], list[Record]], metadata: Mapping[str, Any]) -> None:
    """Register `name` in both catalogs, forgetting whatever was registered under that name before."""
    stand_in(name, loader, metadata)
    _registered[name] = loader


def stand_in(name: str, loader: Callable[[], list[Record]], metadata: Mapping[str, Any]) -> None:
    """Put another loader and other metadata in the place of a data set that goes on to be whose it was."""
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, loader)
    MetadataCatalog.get(name).set(**metadata)


def offer_registration(name: str, loader: Callable[[], list[Record]], metadata: Mapping[str, Any]) -> None:
    """`replace_registration`, unless the name is that of a user's own data set, which stays."""
    if name not in DatasetCatalog or _is_ours(name):
        replace_registration(name, loader, metadata)


def _is_ours(name: str) -> bool:
    loader = DatasetCatalog[name]
    # what stands in for a loader has it as its `function`
    return getattr(loader, "function", loader) is _registered.get(name)


def register_subsets(name: str, seed: int = 0, sizes: Sizes = DEFAULT_SIZES) -> list[str]:
    """Register `<name>_a`, `<name>_b` and `<name>_eval`, or whatever suffixes `sizes` has; nothing is read yet.

    Args:
        name: a registered data set whose records have a "file_name".
        seed: the same seed gives the same images on every machine.
        sizes: suffix -> number of images, or three numbers for a, b, eval. 300/300/50 is the split of the 2975
            Cityscapes training images. Scaled down in proportion where the data set has fewer images.

    Returns:
        The three names. Registering again replaces the earlier split; a user's own data set of such a name stays.

    Raises:
        UserError: `name` is not registered; later, when the records are loaded: too few images.
    """
    if name not in DatasetCatalog:
        raise unknown_dataset(name)
    if not isinstance(sizes, Mapping):
        sizes = dict(zip(SUBSET_SUFFIXES, sizes, strict=True))
    family = _Family(name, seed, dict(sizes))
    for suffix in sizes:
        offer_registration(family.child(suffix), family.loader(suffix), _inherited_metadata(name))
    return [family.child(suffix) for suffix in sizes]


def resolve_subset(name: str, seed: int = 0, sizes: Mapping[str, int] = DEFAULT_SIZES) -> str:
    """Return `name` once it is registered: `<parent>_<suffix>` of a registered parent is registered on the way.

    This is what lets a YAML file write `cityscapes_fine_instance_seg_train_a` under DATASETS.TRAIN.

    Raises:
        UserError: neither a data set nor a subset of one; the sentence lists near matches.
    """
    parent, _, suffix = name.rpartition("_")
    if name not in DatasetCatalog:
        if parent not in DatasetCatalog or suffix not in sizes:
            raise unknown_dataset(name)
        register_subsets(parent, seed, sizes)
    return name


def is_subset(name: str) -> bool:
    """Whether `register_subsets` has registered `name`."""
    return getattr(DatasetCatalog[name], "__qualname__", "").startswith(_Family.__qualname__)


def unknown_dataset(name: str) -> UserError:
    """The error for a data set that is not registered, with the registered names that come nearest."""
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"registered are: {', '.join(DatasetCatalog.list())}."
    return UserError(f"The data set '{name}' is not registered; {hint}")


class _Family:
    """The subsets of one parent, drawn together so that the parent is loaded once for all of them."""

    def __init__(self, parent: str, seed: int, sizes: dict[str, int]):
        self.parent, self.seed, self.sizes = parent, seed, sizes
        self.parent_loader: Callable[[], list[Record]] | None = None
        self.records: dict[str, list[Record]] = {}

    def child(self, suffix: str) -> str:
        return f"{self.parent}_{suffix}"

    def loader(self, suffix: str) -> Callable[[], list[Record]]:
        # Detectron2's COCO conversion writes into the records it is given, so each caller gets its own
        return lambda: copy.deepcopy(self._load()[suffix])

    def _load(self) -> dict[str, list[Record]]:
        parent_loader = DatasetCatalog[self.parent]
        if parent_loader is not self.parent_loader:
            records = sorted(parent_loader(), key=lambda record: record["file_name"])
            drawn = draw_subsets((record["file_name"] for record in records), self.seed, self.sizes)
            suffix_of = {file_name: suffix for suffix, names in drawn.items() for file_name in names}
            self.records = {suffix: [] for suffix in self.sizes}
            for record in records:
                if record["file_name"] in suffix_of:
                    self.records[suffix_of[record["file_name"]]].append(record)
            # COCO-format parents learn their class names only while they load
            for child in filter(_is_ours, map(self.child, self.sizes)):
                MetadataCatalog.get(child).set(**_inherited_metadata(self.parent))
            self.parent_loader = parent_loader
        return self.records


def _inherited_metadata(parent: str) -> dict[str, Any]:
    # the parent's json_file holds the truth of all its images, and COCOEvaluator would take it for the subset's
    own = {"name", "json_file"}
    return {key: value for key, value in MetadataCatalog.get(parent).as_dict().items() if key not in own}
