"""One examination of all data that a run is going to read, before its first iteration."""

import hashlib
import inspect
import json
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.utils import comm

from gan_plugin.errors import UserError, first_line, sentence_of
from gan_plugin.files import write_whole
from gan_plugin.processes import leave_ctrl_c_to_parent

from . import kinds
from .cityscapes import Streets, examine_cityscapes
from .coco_json import CocoFile, read_coco
from .findings import Findings, Problem
from .pictures import header_problem
from .records import Records
from .shapes import whole
from .subsets import draw_subsets, is_subset, register_subsets, stand_in, unknown_dataset

# path -> width and height that the annotations say
Pictures = dict[str, tuple[Any, Any]]
ExaminePicture = Callable[..., Problem | None]
_IN_ONE_PROCESS = 500
_PATH_KEYS = ("image_root", "image_dir", "mask_dir", "gt_dir", "json_file")


@dataclass(frozen=True)
class Demand:
    """What a run asks of its data.

    Attributes:
        train, test: names of registered data sets or of their subsets.
        sizes, seed: of subsets, see `register_subsets`.
        on_bad: DATASETS.ON_BAD.
        masks: whether every annotation needs a mask.
        box_only: whether an object of a training set may be without one nevertheless.
        mask_format: INPUT.MASK_FORMAT.
        classes: the number of the model's classes; 0 if it is not known.
        classes_key: the config key that says so.
        known_classes: names of the classes that the model's weights have learnt; none if they do not say, or if it is
            to learn those of the first training set.
    """

    train: Sequence[str]
    test: Sequence[str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    on_bad: str = "stop"
    masks: bool = True
    box_only: bool = False
    mask_format: str = "polygon"
    classes: int = 0
    classes_key: str = "MODEL.ROI_HEADS.NUM_CLASSES"
    known_classes: Sequence[str] = ()

    def may_lack_masks(self, name: str) -> bool:
        """Whether objects of that registered data set may be without a mask: nothing is measured on it."""
        return self.box_only and name not in {self.base_of(other)[0] for other in self.test}

    def base_of(self, name: str) -> tuple[str, str]:
        """The registered data set that `name` is read from, and its suffix if it is a subset of that."""
        parent, _, suffix = name.rpartition("_")
        own = name in DatasetCatalog and not is_subset(name)
        return (name, "") if own or parent not in DatasetCatalog or suffix not in self.sizes else (parent, suffix)


@dataclass
class Repairs:
    """What has to change so that everybody reads what the examination has read.

    Attributes:
        copies: name of a data set -> a repaired copy of its JSON file.
        functions: names of data sets whose function's records are repaired.
        bitmask: whether masks are run lengths where the config says polygon.
        remarks: what was repaired and left out, a line for each kind.
    """

    copies: dict[str, str] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    bitmask: bool = False
    remarks: list[str] = field(default_factory=list)


class Examination:
    """Reads the data sets of a `Demand` and compares them with each other and with the model.

    Attributes:
        findings: all problems.
        pictures: of all data sets; `examine_pictures` looks at them.
        unmasked: what a training set is called -> how many of its objects have no mask, and of how many.
    """

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.findings = Findings(demand.on_bad)
        self.pictures: Pictures = {}
        self.unmasked: dict[str, tuple[int, int]] = {}
        self._files: dict[str, CocoFile] = {}
        # of those: the number of objects, and the pictures
        self._read_files: dict[str, tuple[int | None, Pictures]] = {}
        self._functions: list[str] = []
        self._streets: dict[tuple[str, str], Streets] = {}
        self._bitmask = False
        # category id and class of the first training set, and what to call it
        self._classes: list[tuple[int, str]] = list(enumerate(demand.known_classes, 1))
        self._classes_of = "the model's training" if self._classes else ""
        trained = self._read(demand.train, test=False)
        if demand.train and not trained and not self.findings.refused:
            self.findings.add(kinds.NOTHING_TO_TRAIN_ON, f"DATASETS.TRAIN {tuple(demand.train)}")
        self.findings.rename(kinds.NO_MASK, kinds.NO_MASK_TO_TRAIN_ON)
        needs_some = demand.masks and demand.box_only and self.unmasked and not self.findings.refused
        if needs_some and all(count == of for count, of in self.unmasked.values()):
            self.findings.add(kinds.NO_MASKS, f"DATASETS.TRAIN {tuple(demand.train)}")
        self._read(demand.test, test=True)

    def examine_pictures(
        self, examine: ExaminePicture = header_problem, progress: Callable[[Iterable], Iterable] = iter
    ) -> None:
        """Look at every picture with `examine`, in several processes if there are many.

        Args:
            examine: takes path, width and height; returns what is wrong.
            progress: wraps the results, such as tqdm.
        """
        jobs = [(path, *size) for path, size in self.pictures.items()]
        call = partial(_call, examine)
        if len(jobs) < _IN_ONE_PROCESS:
            found = [problem for problem in progress(map(call, jobs)) if problem]
        else:
            with multiprocessing.get_context("fork").Pool(initializer=leave_ctrl_c_to_parent) as pool:
                found = [problem for problem in progress(pool.imap(call, jobs, chunksize=64)) if problem]
        self.findings.extend(found)

    def repairs(self, folder: str | os.PathLike) -> Repairs:
        """Write the repaired copies of files to `folder`, under names made of their content, and say what is repaired.

        Raises:
            UserError: a copy cannot be written.
        """
        copies = {name: _write_copy(file, name, Path(folder)) for name, file in self._files.items() if file.changed}
        return Repairs(copies, self._functions, self._bitmask, self.findings.remarks)

    def _read(self, names: Sequence[str], *, test: bool) -> int:
        """Read data sets; returns the number of their objects."""
        parts: dict[str, list[str]] = {}
        for name in names:
            base, suffix = self.demand.base_of(name)
            if base not in DatasetCatalog:
                raise unknown_dataset(name)
            parts.setdefault(base, []).append(suffix)
        return sum(self._read_set(base, suffixes, test) for base, suffixes in parts.items())

    def _read_set(self, name: str, suffixes: list[str], test: bool) -> int:
        metadata = MetadataCatalog.get(name)
        found = coco_files(name)
        # the folder of the images is the reader's to judge: it is not needed where their names are absolute
        keys = ("json_file",) if found else () if _is_cityscapes(metadata) else _PATH_KEYS
        missing = [path for key in keys if (path := metadata.get(key)) and not os.path.exists(path)]
        if missing and not (missing == [metadata.get("json_file")] and truth_file(name) is None):
            root = os.environ.get("DETECTRON2_DATASETS", "not set")
            for path in missing:
                self.findings.add(kinds.NO_PATH, _called(name), detail=f" ({path}; DETECTRON2_DATASETS is {root})")
            return 0
        objects = self._read_file(name, *found, suffixes) if found else self._read_function(name, suffixes, test)
        if test and objects == 0 and not self.findings.refused:
            self.findings.add(kinds.NOTHING, _called(name))
        return 1 if objects is None else objects

    def _read_file(self, name: str, json_file: str, image_root: str, suffixes: list[str]) -> int | None:
        """The number of objects in a COCO JSON; None if it says that it has no annotations."""
        file = self._files.get(name)
        if file is None:
            box_only = self.demand.may_lack_masks(name)
            file = self._files[name] = read_coco(
                json_file, image_root, self.findings, masks=self.demand.masks, box_only=box_only
            )
            called = f"{_called(name)} ({json_file})"
            self._note_unmasked(name, called, file.unmasked, file.asked)
            preset = MetadataCatalog.get(name).get("thing_classes")
            if preset is not None and file.classes and list(preset) != file.classes:
                self.findings.add(kinds.PRESET_CLASSES, called, detail=f" ({_some(preset)}; {_some(file.classes)})")
            self._settle_classes(called, file.classes, file)
            objects = [entry for entry in file.annotations if not entry["iscrowd"]]
            runs = (f"annotation {one['id']}" for one in objects if isinstance(one.get("segmentation"), dict))
            self._note_runs(json_file, runs)
            # by the names that Detectron2's loader gives them
            entries = [entry for entry in file.images if isinstance(entry, dict) and entry.get("file_name")]
            sizes = {
                os.path.join(image_root, str(e["file_name"])): (whole(e.get("width")), whole(e.get("height")))
                for e in entries
            }
            self._read_files[name] = (len(objects) if "annotations" in file.content else None, sizes)
            if not file.changed:
                # a file of COCO's size takes gigabytes, and nobody needs it any more
                file.content = {}
        self._note_pictures(self._read_files[name][1], suffixes)
        return self._read_files[name][0]

    def _read_function(self, name: str, suffixes: list[str], test: bool) -> int | None:
        """The number of objects that a function returns; None if they are not annotated in Detectron2's format."""
        place, metadata = _called(name), MetadataCatalog.get(name)
        if _is_cityscapes(metadata):
            return self._read_streets(place, metadata, suffixes)
        try:
            records = DatasetCatalog.get(name)
        except UserError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}, line {frame.lineno}"
            self.findings.add(kinds.FUNCTION, place, detail=f" ({where}: {type(error).__name__}: {first_line(error)})")
            return None
        if not isinstance(records, list | tuple):
            # Detectron2 takes a torch data set as well, which may compute its records
            return None
        read = _records(name, records, self.findings, self.demand)
        Examined(
            name, _Function(name, self.demand, changed=read.changed, ready=read.sound if read.changed else records)
        )
        if read.changed:
            self._functions.append(name)
        self._note_unmasked(name, place, read.unmasked, read.asked)
        sound = [record for record in read.sound if isinstance(record.get("file_name"), str)]
        sizes = {record["file_name"]: (whole(record.get("width")), whole(record.get("height"))) for record in sound}
        self._note_pictures(sizes, suffixes)
        classes = list(metadata.get("thing_classes") or ())
        self._settle_classes(place, classes)
        if not any("annotations" in record for record in sound):
            return None
        if test and not classes:
            self.findings.add(kinds.NO_CLASSES, place)
        if test and (truth := truth_file(name)):
            self._files[name] = read_coco(truth, metadata.get("image_root", ""), self.findings, masks=self.demand.masks)
        objects = [
            (record["file_name"], one.get("segmentation"))
            for record in sound
            for one in record.get("annotations") or ()
            if isinstance(one, dict) and not one.get("iscrowd")
        ]
        self._note_runs(place, (entry for entry, mask in objects if isinstance(mask, dict)))
        return len(objects)

    def _read_streets(self, place: str, metadata: Any, suffixes: list[str]) -> int:
        """The number of objects in a split of Cityscapes."""
        folders = metadata.image_dir, metadata.gt_dir
        if folders not in self._streets:
            self._streets[folders] = examine_cityscapes(*folders, self.findings, headers=False)
        streets = self._streets[folders]
        self._note_pictures(dict(streets.sizes), suffixes)
        self._settle_classes(place, list(metadata.get("thing_classes") or ()))
        return streets.objects

    def _settle_classes(self, called: str, classes: list[str], file: CocoFile | None = None) -> None:
        """Compare the classes of a data set with those of the training set, or take them for those."""
        if not classes:
            return
        if not self._classes:
            ids = [entry["id"] for entry in file.categories] if file else range(1, len(classes) + 1)
            self._classes, self._classes_of = list(zip(ids, classes, strict=True)), called
        known = [name for _, name in self._classes]
        if classes != known and set(classes) <= set(known) and file is not None:
            _give_ids(file, self._classes)
            self.findings.add(kinds.MATCHED, called, detail=f" ({self._classes_of})")
            classes = known
        elif classes != known and (self.demand.train or self.demand.known_classes or set(classes) == set(known)):
            self.findings.add(
                kinds.OTHER_CLASSES, called, detail=f" ({_some(classes)}; {_some(known)} in {self._classes_of})"
            )
        if self.demand.classes not in (0, len(classes)):
            model = f"{self.demand.classes_key} is {self.demand.classes}"
            detail = f" ({len(classes)}: {_some(classes)}; {model})"
            self.findings.add(kinds.NUMBER_OF_CLASSES, called, detail=detail)

    def _note_unmasked(self, name: str, called: str, count: int, of: int) -> None:
        """Say how many objects of a data set have no mask."""
        if name in {self.demand.base_of(other)[0] for other in self.demand.train} and of:
            self.unmasked[called] = count, of
        if count and self.demand.masks and self.demand.may_lack_masks(name):
            self.findings.add(kinds.BOXES_ALONE, called, detail=f" ({count} of {of})")

    def _note_runs(self, place: str, entries: Iterable[str]) -> None:
        if self.demand.masks and self.demand.mask_format == "polygon":
            for entry in entries:
                self.findings.add(kinds.RUNS_AS_POLYGONS, place, entry, "segmentation")
                self._bitmask = True

    def _note_pictures(self, sizes: Pictures, suffixes: list[str]) -> None:
        if "" not in suffixes and sizes:
            drawn = draw_subsets(sizes, self.demand.seed, self.demand.sizes)
            sizes = {path: sizes[path] for suffix in suffixes for path in drawn[suffix]}
        self.pictures |= sizes


def prepare(demand: Demand, folder: str | os.PathLike, *, pictures: bool = True) -> Repairs:
    """Examine the data sets of a run, and register them so that everybody reads what could be repaired.

    Every process of a run has to call it; the main one reads, and writes repaired copies to `folder`.

    Args:
        demand: what the run asks for.
        folder: for the copies, none of which is written if nothing needs repair.
        pictures: whether the headers of all pictures are read, too.

    Returns:
        What was repaired. Its remarks are there to be logged; other processes than the main one get none.

    Raises:
        UserError: data sets are unknown, absent or broken; all that is wrong is told together.
    """
    names = [*demand.train, *demand.test]
    for base in {demand.base_of(name)[0] for name in names}:
        restore(base)

    def examined() -> Repairs:
        examination = Examination(demand)
        if pictures:
            examination.examine_pictures()
        examination.findings.refuse()
        return examination.repairs(folder)

    repairs = _in_main_process(examined)
    register(repairs, demand)
    for name in names:
        parent, suffix = demand.base_of(name)
        if suffix:
            register_subsets(parent, demand.seed, demand.sizes)
    return repairs if comm.is_main_process() else replace(repairs, remarks=[])


def _in_main_process(work: Callable[[], Repairs]) -> Repairs:
    """What `work` returns in the main process, also in the others; or the UserError that it raises, in all of them."""
    result: Repairs | str = ""
    if comm.is_main_process():
        try:
            result = work()
        except UserError as error:
            if comm.get_world_size() == 1:
                raise
            result = sentence_of(error)
    result = comm.all_gather(result)[0]
    if isinstance(result, str):
        raise UserError(result)
    return result


class Examined:
    """What stands in the catalog for a data set that is read otherwise than it was registered.

    Attributes:
        function: that was registered.
        metadata: likewise; None if they are as they were.
    """

    def __init__(self, name: str, load: Callable[[], Any], metadata: Mapping[str, Any] | None = None) -> None:
        """Take the place of `name`: its records come from `load`, and its metadata become `metadata`."""
        self.function, self.metadata, self._load = DatasetCatalog[name], None, load
        if metadata is not None:
            self.metadata = _metadata_of(name)
            stand_in(name, self, metadata)
        else:
            DatasetCatalog.pop(name)
            DatasetCatalog.register(name, self)

    def __call__(self) -> Any:
        return self._load()


def restore(name: str) -> None:
    """Register a data set as it was before its examination."""
    while name in DatasetCatalog and isinstance(former := DatasetCatalog[name], Examined):
        stand_in(name, former.function, _metadata_of(name) if former.metadata is None else former.metadata)


def register(repairs: Repairs, demand: Demand) -> None:
    """Let everybody in this process read what was repaired instead of what is there."""
    for name in repairs.functions:
        if not isinstance(DatasetCatalog[name], Examined):
            Examined(name, _Function(name, demand, changed=True))
    for name, copy in repairs.copies.items():
        metadata = _metadata_of(name) | {"json_file": copy}
        if found := coco_files(name):
            # Detectron2's loader sets them, and refuses to change them
            for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
                metadata.pop(key, None)
            loader = DatasetCatalog[name]
            extra = (loader.args[3:], loader.keywords) if isinstance(loader, partial) else ((), {})
            Examined(name, partial(load_coco_json, copy, found[1], name, *extra[0], **extra[1]), metadata)
        else:
            Examined(name, DatasetCatalog[name], metadata)


class _Function:
    """A user's function whose records are examined; those of the first examination are handed out once."""

    def __init__(self, name: str, demand: Demand, *, changed: bool, ready: Any = None) -> None:
        self._function, self._demand, self._changed, self._ready = DatasetCatalog[name], demand, changed, ready
        self._name = name

    def __call__(self) -> Any:
        ready, self._ready = self._ready, None
        if ready is not None:
            return ready
        records = self._function()
        return (
            _records(self._name, records, Findings(self._demand.on_bad), self._demand).sound
            if self._changed
            else records
        )


def _records(name: str, records: Sequence[Any], findings: Findings, demand: Demand) -> Records:
    classes = len(MetadataCatalog.get(name).get("thing_classes") or ()) or demand.classes
    options = {"masks": demand.masks, "box_only": demand.may_lack_masks(name)}
    return Records(records, _called(name), findings, classes=classes, **options)


def coco_files(name: str) -> tuple[str, str] | None:
    """JSON file and image folder of a data set that Detectron2's COCO loader reads; None if another function does."""
    loader = DatasetCatalog[name]
    if isinstance(loader, partial) and loader.func is load_coco_json and len(loader.args) >= 3:
        return os.fspath(loader.args[0]), os.fspath(loader.args[1])
    if inspect.isfunction(loader) and loader.__module__ == load_coco_json.__module__:
        known = inspect.getclosurevars(loader).nonlocals
        if {"json_file", "image_root"} <= known.keys():
            return os.fspath(known["json_file"]), os.fspath(known["image_root"])
    return None


def truth_file(name: str) -> str | None:
    """The COCO JSON that COCOEvaluator takes the truth of a data set from, unless it made that file itself."""
    metadata = MetadataCatalog.get(name)
    path = metadata.get("json_file")
    made = path and os.path.basename(path) == f"{name}_coco_format.json"
    return None if made or metadata.get("evaluator_type") != "coco" else path


def _metadata_of(name: str) -> dict[str, Any]:
    return {key: value for key, value in MetadataCatalog.get(name).as_dict().items() if key != "name"}


def _give_ids(file: CocoFile, classes: list[tuple[int, str]]) -> None:
    """Give the categories of `file` the ids that they have in `classes`, whose others are added."""
    of_name = {name: key for key, name in classes}
    new_id = {entry["id"]: of_name[entry["name"]] for entry in file.categories}
    for entry in file.annotations:
        entry["category_id"] = new_id[entry["category_id"]]
    own = {entry["name"]: entry for entry in file.categories}
    file.content["categories"] = [{**own.get(name, {}), "id": key, "name": name} for key, name in classes]
    file.changed = True


def _write_copy(file: CocoFile, name: str, folder: Path) -> str:
    data = json.dumps(file.content).encode()
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.json"
    if not path.exists():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, f"{file.path} needs a repaired copy there.")
    return os.fspath(path)


def _is_cityscapes(metadata: Any) -> bool:
    return str(metadata.get("evaluator_type", "")).startswith("cityscapes")


def _call(examine: ExaminePicture, job: tuple[str, Any, Any]) -> Problem | None:
    return examine(*job)


def _called(name: str) -> str:
    return f"The data set '{name}'"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
