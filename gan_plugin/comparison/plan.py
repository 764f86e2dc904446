"""What is to be run: the thesis' protocol (sections 6.3 and 6.4) for several seeds and arms, and on what data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from gan_plugin.config import registered
from gan_plugin.config_files import differences, flat, read_yaml, told
from gan_plugin.data.builtin import PENN_FUDAN_SPLITS, prepare_datasets
from gan_plugin.data.subsets import SUBSET_SUFFIXES
from gan_plugin.engine.setup import default_config
from gan_plugin.errors import UserError
from gan_plugin.evaluation.truth_boxes import MEASURES, TASK, can_be_told
from gan_plugin.rules import series, whole

from .arms import Settings, arm_settings, scaled_schedule

_PENN_FUDAN = "penn_fudan"


@dataclass(frozen=True)
class Split:
    """Names of A, B and the held-out part, the images asked for, and those that there are."""

    names: list[str]
    asked: list[int]
    used: list[int]


def make_split(cfg: CfgNode, sizes: Sequence[int] | None) -> Split:
    """The parts of the one data set that DATASETS.TRAIN of `cfg` names, or that its subsets are of.

    Args:
        cfg: changed: DATASETS.TRAIN, DATASETS.TEST and the SIZES of the subsets become those of the split.
        sizes: images in A, B and the held-out part; None leaves the config's.

    Raises:
        UserError: more than one data set, or it is unknown, absent, broken or too small.
    """
    families = sorted({_family(name) for name in cfg.DATASETS.TRAIN})
    if len(families) != 1:
        raise UserError(
            f"A comparison needs one data set to split, but DATASETS.TRAIN names {len(families)}: "
            f"{', '.join(families) or 'none'}; set it to one."
        )
    suffixes, node = SUBSET_SUFFIXES, cfg.DATASETS.SUBSETS
    if families == [_PENN_FUDAN]:
        suffixes, node = PENN_FUDAN_SPLITS, cfg.DATASETS.PENN_FUDAN
    if sizes is not None:
        node.SIZES = tuple(sizes)
    if min(node.SIZES) < 1:
        raise UserError(f"The sizes {tuple(node.SIZES)} leave a part of the data set empty; give three numbers >= 1.")
    names = [f"{families[0]}_{suffix}" for suffix in suffixes]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(names[:2]), tuple(names[2:])
    prepare_datasets(cfg, train=True)
    return Split(names, list(node.SIZES), [len(DatasetCatalog.get(name)) for name in names])


def _family(name: str) -> str:
    parent, _, suffix = name.rpartition("_")
    if name in {f"{_PENN_FUDAN}_{split}" for split in PENN_FUDAN_SPLITS}:
        return _PENN_FUDAN
    return parent if suffix in SUBSET_SUFFIXES and parent in DatasetCatalog else name


MODEL_A = "a"
# metrics that verdicts are given on: of every comparison of masks, and of those whose models can be told boxes
MAIN = ("segm/AP", "boundary/AP")
MAIN_IN_TRUTH_BOXES = tuple(f"{TASK}/{measure}" for measure in MEASURES)


@dataclass(frozen=True)
class Run:
    """One run of tools/train_net.py."""

    seed: int
    # MODEL_A or the name of an arm
    arm: str
    iterations: int
    # in KEY VALUE form, without OUTPUT_DIR and the weights of model A
    settings: Settings

    @property
    def name(self) -> str:
        """Its folder within that of the comparison."""
        return f"seed{self.seed}/{self.arm}"

    @property
    def parent(self) -> str | None:
        """The name of the run whose weights this one starts from; None for model A, which has the config's."""
        return None if self.arm == MODEL_A else f"seed{self.seed}/{MODEL_A}"


@dataclass(frozen=True)
class Plan:
    """Everything that decides what the runs of a comparison are."""

    config_file: str
    # the config that all runs share, as YAML
    config: str
    split: Split
    iterations_a: int
    iterations_b: int
    stage_a: Settings
    stage_b: Settings
    arms: dict[str, Settings]
    seeds: list[int]
    # the metrics that verdicts are given on, settled before the first run; all others are exploratory
    main: list[str] = field(default_factory=lambda: list(MAIN))

    def runs(self) -> list[Run]:
        """All runs; each model A before the arms that start from it."""
        runs = []
        for seed in self.seeds:
            runs.append(Run(seed, MODEL_A, self.iterations_a, {**self.stage_a, "SEED": seed}))
            for arm, settings in self.arms.items():
                # an arm's own keys go over those of the stage: it may train on other images, or longer
                keys = {**self.stage_b, **settings, "SEED": seed}
                runs.append(Run(seed, arm, keys.get("SOLVER.MAX_ITER", self.iterations_b), keys))
        return runs

    def to_dict(self) -> dict[str, Any]:
        """As plan.json holds it."""
        return asdict(self)

    @staticmethod
    def from_dict(content: dict[str, Any]) -> "Plan":
        """The inverse of `to_dict`; KeyError or TypeError if `content` is no plan."""
        return Plan(**{**content, "split": Split(**content["split"])})


def make_plan(
    cfg: CfgNode,
    *,
    config_file: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    iterations: tuple[int, int],
    sizes: Sequence[int] | None = None,
) -> Plan:
    """Plan a comparison.

    Args:
        cfg: the config that all runs share; neither its OUTPUT_DIR nor its SEED matters.
        config_file: where it came from, for the report.
        arms: see `arm_settings`; the baseline is added.
        seeds: of the weights, the order of the data and the augmentation, one model A each.
        iterations: of stage A and of stage B.
        sizes: images in A, B and the held-out part; None for the config's.

    Raises:
        UserError: an arm, a number or the data set is not usable.
    """
    cfg = cfg.clone()
    cfg.defrost()
    _check_numbers(iterations, seeds)
    split = make_split(cfg, sizes)
    return assemble_plan(
        cfg,
        config_file=config_file,
        split=split,
        arms=arm_settings(arms, cfg, iterations[1]),
        seeds=seeds,
        iterations=iterations,
    )


def assemble_plan(
    cfg: CfgNode,
    *,
    config_file: str,
    split: Split,
    arms: dict[str, Settings],
    seeds: Sequence[int],
    iterations: tuple[int, int],
) -> Plan:
    """Plan a comparison of any arms on any data sets.

    Args:
        cfg, config_file, seeds, iterations: see `make_plan`.
        split: names of the registered data sets A, B and the held-out one, and their sizes.
        arms: name -> config keys, `BASELINE` among them; they go over those of the stage, DATASETS.TRAIN too.

    Raises:
        UserError: a number is not usable.
    """
    _check_numbers(iterations, seeds)
    cfg = cfg.clone()
    cfg.defrost()
    a, b, held_out = split.names
    cfg.OUTPUT_DIR, cfg.SEED = "output", -1
    test = {"DATASETS.TEST": [held_out], **_metrics(cfg)}
    stage_a = {**scaled_schedule(cfg, iterations[0]), "MODEL.GAN.ENABLED": False, "DATASETS.TRAIN": [a], **test}
    # model A has learnt what the config's START_ITER waits for
    stage_b = {
        **scaled_schedule(cfg, iterations[1]),
        "MODEL.GAN.START_ITER": 0,
        "DATASETS.TRAIN": [b],
        **test,
    }
    main = [*MAIN, *(MAIN_IN_TRUTH_BOXES if test["TEST.TRUTH_BOXES"] else ())] if cfg.MODEL.MASK_ON else ["bbox/AP"]
    return Plan(config_file, cfg.dump(), split, *iterations, stage_a, stage_b, arms, sorted(set(seeds)), main)


def _check_numbers(iterations: tuple[int, int], seeds: Sequence[int]) -> None:
    for option, value in zip(("--iters-a", "--iters-b"), iterations, strict=True):
        whole(1).check(option, value)
    series(whole(0), bool, "one or more whole numbers, 0 or more").check("--seeds", list(seeds))


def _metrics(cfg: CfgNode) -> Settings:
    """Every metric that there is: COCO AP and AR, and for masks Boundary AP, AP image by image, and in truth boxes."""
    masks = cfg.MODEL.MASK_ON
    kind = registered("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY)
    told = masks and isinstance(kind, type) and can_be_told(kind)
    keys = {"BOUNDARY_AP": masks, "PER_IMAGE_AP": masks, "TRUTH_BOXES": told}
    return {"TEST.COCO_EVALUATOR": "faster", **{f"TEST.{key}": value for key, value in keys.items()}}


def extended(former: Plan, asked: Plan, folder: str) -> Plan:
    """`former` with the arms and the seeds of `asked` added.

    Raises:
        UserError: they differ in anything else.
    """
    # a key that has come since the comparison was begun had its default then
    changes = differences(_lasting(former, asked), _lasting(asked, former), flat(default_config()))
    if changes:
        raise UserError(
            f"{folder} holds a comparison that was begun with {told(changes)}; repeat it as it was, with more arms or "
            "seeds if you like, or choose another --output."
        )
    seeds = sorted({*former.seeds, *asked.seeds})
    return replace(former, arms={**former.arms, **asked.arms}, seeds=seeds)


def _lasting(plan: Plan, other: Plan) -> dict[str, Any]:
    """What two plans of one folder must agree on, in the user's words: options, config keys, keys of shared arms."""
    parts = {"stage A": plan.stage_a, "stage B": plan.stage_b}
    parts |= {f"arm {arm}": settings for arm, settings in plan.arms.items() if arm in other.arms}
    return {
        "--iters-a": plan.iterations_a,
        "--iters-b": plan.iterations_b,
        **{f"images {name}": value for name, value in asdict(plan.split).items()},
        **flat(read_yaml(plan.config, "The config of the comparison")),
        **{f"{part}: {key}": value for part, settings in parts.items() for key, value in settings.items()},
    }


def command_of(plan: Mapping[str, Any]) -> str:
    """The command line that gives the plan (see `Plan.to_dict`); KEY VALUE pairs given then are in its config now."""
    sizes = " ".join(map(str, plan["split"]["asked"]))
    return (
        f"python tools/compare.py --config-file {plan['config_file']} --arms {' '.join(plan['arms'])} "
        f"--seeds {' '.join(map(str, plan['seeds']))} --iters-a {plan['iterations_a']} "
        f"--iters-b {plan['iterations_b']} --sizes {sizes} --output DIR"
    )
