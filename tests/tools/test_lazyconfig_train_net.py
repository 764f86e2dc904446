"""LazyConfig: the configs are the YAML ones value for value, and the command line does what train_net.py does."""

import argparse
import copy
import importlib.util
import json
import logging
import shutil
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger
from support import assert_same

from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.engine.lazy_config import build, load_lazy_config
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import run_command_line

ROOT = Path(__file__).resolve().parents[2]
LAZY = ROOT / "configs/lazy"
QUICK = LAZY / "gan_mask_rcnn_cityscapes_quick.py"
YAML_OF = {
    "gan_mask_rcnn_cityscapes": "gan_mask_rcnn_cityscapes.yaml",
    "gan_mask_rcnn_cityscapes_feature": "gan_mask_rcnn_cityscapes_feature.yaml",
    "gan_mask_rcnn_cityscapes_quick": "quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml",
}
# The same small run in both languages: pictures of 128x64, the game from the second iteration on.
SMALL_YAML = {
    "MODEL.GAN.START_ITER": 1,
    "MODEL.GAN.WARMUP_ITERS": 0,
    "MODEL.GAN.VIS_PERIOD": 2,
    "MODEL.GAN.EMA.DECAY": 0.9,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.WARMUP_ITERS": 1,
    "SOLVER.CHECKPOINT_PERIOD": 2,
}
SMALL_LAZY = {
    "model.start_iter": 1,
    "model.warmup_iters": 0,
    "model.sample_period": 2,
    "train.ema.decay": 0.9,
    "model.roi_heads.box_predictor.test_score_thresh": 0.0,
    "dataloader.train.mapper.augmentations.0.short_edge_length": "[64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length": 64,
    "train.max_iter": 4,
    "lr_multiplier.warmup_length": 0.25,
    "train.checkpointer.period": 2,
    "train.log_period": 2,
}


def load_lazy(name, *overrides):
    return load_lazy_config(argparse.Namespace(config_file=str(LAZY / f"{name}.py"), opts=list(overrides)))


def load_yaml(name, *options):
    arguments = ["--config-file", str(ROOT / "configs" / YAML_OF[name]), *map(str, options)]
    return load_config(default_argument_parser().parse_args(arguments))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A data root with six toy street scenes to train on and two to evaluate on."""
    root = tmp_path_factory.mktemp("toy")
    write_toy_cityscapes(root, 6, 2, 0, (128, 64))
    return root


@cache
def read_once(image_dir, gt_dir):
    return load_cityscapes_instances(image_dir, gt_dir)


def records(*folders):
    return copy.deepcopy(read_once(*folders))


@pytest.fixture
def tool(toy, monkeypatch):
    """(name of a tool, arguments) -> exit code, run in this process on the toy set."""
    # Detectron2 has read DETECTRON2_DATASETS when it was imported.
    for split in ("train", "val"):
        name = f"cityscapes_fine_instance_seg_{split}"
        folders = tuple(f"{toy}/cityscapes/{part}/{split}" for part in ("leftImg8bit", "gtFine"))
        metadata = MetadataCatalog.get(name).as_dict() | {"image_dir": folders[0], "gt_dir": folders[1]}
        monkeypatch.setitem(DatasetCatalog.data, name, partial(records, *folders))
        monkeypatch.setitem(MetadataCatalog.data, name, Metadata(**metadata))

    def call(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return run_command_line(lambda: module.main([str(argument) for argument in arguments]))

    yield call
    # Detectron2 keeps the handlers of a run for the life of the process; these write to this test's captured stdout.
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "gan_plugin"):
        logging.getLogger(name).handlers.clear()


def run_lazy(tool, out, *more, config=QUICK):
    flags = [argument for argument in more if str(argument).startswith("--")]
    overrides = [f"{key}={value}" for key, value in SMALL_LAZY.items()]
    overrides += [argument for argument in more if argument not in flags]
    return tool("lazyconfig_train_net", "--config-file", config, *flags, f"train.output_dir={out}", *overrides)


@pytest.mark.parametrize("name", YAML_OF)
def test_config_opens_with_its_launch_command(name):
    opening = (LAZY / f"{name}.py").read_text().split("\n#\n")[0]
    assert "tools/lazyconfig_train_net.py" in opening and f"configs/lazy/{name}.py" in opening


@pytest.mark.parametrize("name", YAML_OF)
def test_model_is_that_of_the_yaml_file(name, make_inputs):
    """The same parameters by name and shape and, with the same weights and random state, the same losses."""
    cfg = load_yaml(name, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16)
    expected = build_model(cfg)
    lazy = load_lazy(name, "train.device=cpu", "model.roi_heads.batch_size_per_image=16")
    model = build(lazy, "model")
    assert [(key, p.shape, p.requires_grad) for key, p in model.named_parameters()] == [
        (key, p.shape, p.requires_grad) for key, p in expected.named_parameters()
    ]
    model.load_state_dict(expected.state_dict())
    assert_same(losses(expected, make_inputs(side=64)), losses(model, make_inputs(side=64)))


def losses(model, inputs):
    torch.manual_seed(5)
    with EventStorage(400):
        generator, pairs = model.generator_forward(inputs)
        found = {**generator, **model.adversarial_losses(pairs), **model.discriminator_losses(pairs)}
    assert {"loss_mask", "loss_adv_mask", "loss_disc_mask"} <= found.keys()
    return {name: loss.detach() for name, loss in found.items()}


@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_a_run_equals_that_of_the_yaml_file_and_its_resumed_self(tool, tmp_path, mode):
    """Weights, average and evaluation, bit for bit; and all that a checkpoint holds, where a run was broken off."""
    yaml, lazy, resumed = (tmp_path / name for name in ("yaml", "lazy", "resumed"))
    options = [part for option in SMALL_YAML.items() for part in option]
    config = ROOT / "configs" / YAML_OF["gan_mask_rcnn_cityscapes_quick"]
    yaml_options = ["MODEL.GAN.MODE", mode, *options, "MODEL.GAN.EMA.EVALUATE", False, "OUTPUT_DIR", yaml]
    assert tool("train_net", "--config-file", config, *yaml_options) == 0
    assert run_lazy(tool, lazy, f"train.gan.mode={mode}") == 0
    for name in ("model_final.pth", "model_final_ema.pth"):
        expected, found = (torch.load(run / name, weights_only=True)["model"] for run in (yaml, lazy))
        assert_same(dict(expected), dict(found))
    first, second = (json.loads((run / "metrics.json").read_text().splitlines()[-1]) for run in (yaml, lazy))
    assert first["segm/AP"] == second["segm/AP"]
    assert "ema/cityscapes/AP" in second and (lazy / "ema/inference/coco_instances_results.json").exists()
    assert list((lazy / "samples").glob("iter_*.png")) and (lazy / "config.yaml").exists()

    resumed.mkdir()
    for name in ("model_0000001.pth", "config.yaml"):
        shutil.copy(lazy / name, resumed)
    (resumed / "last_checkpoint").write_text("model_0000001.pth")
    assert run_lazy(tool, resumed, f"train.gan.mode={mode}", "train.ema.evaluate=false", "--resume") == 0
    assert_same(*(torch.load(run / "model_final.pth", weights_only=True) for run in (lazy, resumed)))


def test_evaluation_only_and_what_cannot_be_resumed(tool, tmp_path, capsys):
    trained, evaluated = tmp_path / "trained", tmp_path / "evaluated"
    assert run_lazy(tool, trained, "train.max_iter=1", "train.ema.evaluate=false") == 0
    weights = f"train.init_checkpoint={trained}/model_final.pth"
    assert run_lazy(tool, evaluated, weights, "--eval-only") == 0
    after_training = json.loads((trained / "metrics.json").read_text().splitlines()[-1])
    again = json.loads((evaluated / "metrics.json").read_text())
    assert again["segm/AP"] == after_training["segm/AP"] and again["bbox/AP50"] == after_training["bbox/AP50"]

    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file() and path.name != "log.txt"}
    capsys.readouterr()
    for change, sentence in (
        ([], "already holds a checkpoint of another run (model_final_ema.pth); add --resume"),
        (["--resume", "train.gan.mode=joint"], "begun with train.gan.mode 'alternating' (now 'joint'); resume"),
        (["--resume", "model.adversaries.mask.discriminator.norm=SyncBN"], "mask.discriminator.norm 'GN' (now 'Sync"),
        (["--resume", "model.adversaries.mask=null"], "mask._target_ 'gan_plugin."),
        (["--resume", "model.backbone.norm=BN"], "model.backbone.norm '' (now 'BN')"),
        (["--eval-only"], "add train.init_checkpoint="),
    ):
        assert run_lazy(tool, trained, *change) == 2
        assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in trained.iterdir() if path in before} == before


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("train.gan.mod=joint", "The config has no key train.gan.mod; train.gan has mode. To add a key"),
        ("optimzer.lr=1", "The config has no key optimzer.lr"),
        ("SOLVER.BASE_LR", "The override 'SOLVER.BASE_LR' is wrong: "),
        ("~train.seed", "write it as key=value"),
        ("train.max_iter=ten", "train.max_iter is 'ten'; set it to a whole number, 1 or more"),
        ("train.gan.order=third", "train.gan.order is 'third', which is unknown; the known ones are 'thesis', 'paper'"),
        ("train.accumulate=2", "train.accumulate 2 needs train.gan.order=paper"),
        ("model.adversaries.mask.wait=3", "model of the config is wrong: "),
        ("model.adversaries.mask.discriminator.input_size=64", "halves the side"),
        ("model.adversaries.mask=null", "train.gan.mode=alternating needs a model with adversaries"),
        ("optimizer=null", "has no optimizer; see configs/lazy/"),
        ("train.seed=${nothing}", "Interpolation key 'nothing' not found"),
        ("dataloader.train.dataset.names=cityscapes_fine_instance_seg_trian", "did you mean"),
        ("train.init_checkpoint=nowhere.pth", "Check train.init_checkpoint"),
    ],
)
def test_a_bad_override_is_one_sentence_and_exit_code_2(tool, tmp_path, capsys, override, sentence):
    assert run_lazy(tool, tmp_path / "run", override) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and sentence in error
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("content, sentence", [("model = (", "SyntaxError"), ("x = y", "NameError: name 'y'")])
def test_a_broken_config_is_named(tool, tmp_path, capsys, content, sentence):
    config = tmp_path / "config.py"
    config.write_text(content)
    assert run_lazy(tool, tmp_path / "run", config=config) == 2
    assert f"The config file {config} is wrong: {sentence}" in capsys.readouterr().err
