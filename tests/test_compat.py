"""The repairs of known-broken upstream packages, each against a process in which the fault is present."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from PIL import Image

from gan_plugin import compat
from gan_plugin.engine.train_loader import ResumableTrainLoader, build_resumable_train_loader

ROOT = Path(__file__).resolve().parents[1]
DETECTRON2 = Path(find_spec("detectron2").origin).parent
CAR, ROAD = 26, 7  # Cityscapes label ids

# argv: sample's root, then flags. Prints the scores as JSON.
EVALUATE = """
import json, sys
import numpy as np
root, flags = sys.argv[1], sys.argv[2:]
if "new-numpy" in flags:  # what numpy 2.3 and 2.4 changed
    del np.in1d
    count = np.count_nonzero
    np.count_nonzero = lambda *args, **kwargs: np.int64(count(*args, **kwargs))
if "compat" in flags:
    from gan_plugin import compat
    compat.apply()
    compat.apply()
    assert not set(compat.EVALUATORS) & set(sys.modules), "imported before anyone needs it"

import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from detectron2.structures import Instances

records = load_cityscapes_instances(root + "/leftImg8bit/val", root + "/gtFine/val", from_json=True, to_polygons=True)
records.sort(key=lambda record: record["file_name"])
metadata = MetadataCatalog.get("sample")
metadata.gt_dir = root + "/gtFine/val"
metadata.thing_classes = ["car"]
instances, semantic = CityscapesInstanceEvaluator("sample"), CityscapesSemSegEvaluator("sample")
instances.reset()
semantic.reset()
for record, rows, score in zip(records, (40, 21), (0.9, 0.8)):
    masks = torch.zeros(1, 64, 128, dtype=torch.bool)
    masks[0, 10:10 + rows, 20:60] = True
    found = Instances((64, 128), pred_masks=masks, scores=torch.tensor([score]), pred_classes=torch.tensor([0]))
    instances.process([record], [{"instances": found}])
    logits = torch.zeros(19, 64, 128)
    logits[0] = 1  # road, train id 0
    logits[13, 10:10 + rows, 20:60] = 2  # car, train id 13
    semantic.process([record], [{"sem_seg": logits}])
scores = {"segm": instances.evaluate()["segm"], "sem_seg": semantic.evaluate()["sem_seg"]}
boxes = [annotation["bbox"] for record in records for annotation in record["annotations"]]
print("\\n" + json.dumps({"scores": scores, "boxes": boxes}, default=float))
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """Two images in Cityscapes' format: on each a car of 40 x 40 pixels with its corner at (20, 10), on a road."""
    root = tmp_path_factory.mktemp("cityscapes")
    square = [[20, 10], [59, 10], [59, 49], [20, 49]]  # Cityscapes' polygons include their last row and column
    for frame in ("000000", "000001"):
        for part in ("leftImg8bit", "gtFine"):
            (root / part / "val" / "town").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 64)).save(root / f"leftImg8bit/val/town/town_{frame}_000019_leftImg8bit.png")
        truth = str(root / f"gtFine/val/town/town_{frame}_000019_gtFine_")
        labels = np.full((64, 128), ROAD, np.uint8)
        labels[10:50, 20:60] = CAR
        Image.fromarray(labels).save(truth + "labelIds.png")
        ids = labels.astype(np.uint16)
        ids[labels == CAR] = CAR * 1000
        Image.fromarray(ids).save(truth + "instanceIds.png")
        objects = [{"label": "car", "polygon": square}]
        Path(truth + "polygons.json").write_text(json.dumps({"imgHeight": 64, "imgWidth": 128, "objects": objects}))
    return root


def copy_of_detectron2(folder: Path, scripts: str) -> Path:
    """A folder with the installed Detectron2, which finds cityscapesScripts under the name `scripts` there."""
    shutil.copytree(DETECTRON2, folder / "detectron2", ignore=shutil.ignore_patterns("__pycache__"))
    if (DETECTRON2.parent / "projects" / "PointRend").is_dir():  # where a checkout has what an installation has inside
        (folder / "projects").symlink_to(DETECTRON2.parent / "projects")
    for name in ("data/datasets/cityscapes.py", "evaluation/cityscapes_evaluation.py"):
        source = (DETECTRON2 / name).read_text().replace(compat.INTERNAL_SCRIPTS, "cityscapesscripts")
        source, count = re.subn(r"( (?:from|import) )cityscapesscripts\.", rf"\g<1>{scripts}.", source)
        assert count, f"{name} no longer imports cityscapesScripts"
        (folder / "detectron2" / name).write_text(source)
    return folder


@pytest.fixture(scope="module")
def healthy_build(tmp_path_factory) -> Path:
    return copy_of_detectron2(tmp_path_factory.mktemp("healthy"), "cityscapesscripts")


@pytest.fixture(scope="module")
def broken_build(tmp_path_factory) -> Path:
    """As upstream changed it on 19 Dec 2024."""
    return copy_of_detectron2(tmp_path_factory.mktemp("broken"), compat.INTERNAL_SCRIPTS)


# Forks for every line of JSON in argv, once it has imported what is neither Detectron2's nor ours.
SERVE = """
import json, os, sys, traceback
import PIL.Image, numpy, pycocotools.mask, scipy.ndimage, scipy.optimize, scipy.stats, torch, torchvision
for line in sys.argv[1:]:
    case = json.loads(line)
    if not (child := os.fork()):
        os.chdir(case["folder"])
        os.dup2(os.open(case["output"], os.O_CREAT | os.O_WRONLY), 1)
        os.dup2(1, 2)
        sys.path[:0], sys.argv[1:] = case["path"], case["arguments"]
        try:
            exec(case["script"], {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] in (0, 256)
"""


@pytest.fixture(scope="module")
def evaluated(sample, healthy_build, broken_build, tmp_path_factory) -> dict[str, Path]:
    """By name the folder in which an evaluation ran, and beside it what it said as FOLDER.txt."""
    cases = {
        "healthy": (healthy_build, []),
        "repaired": (broken_build, ["compat", "new-numpy"]),
        "build": (broken_build, []),
        "numpy": (healthy_build, ["new-numpy"]),
    }
    root, lines = tmp_path_factory.mktemp("evaluated"), []
    for name, (build, flags) in cases.items():
        (root / name).mkdir()
        case = {"folder": str(root / name), "output": str(root / f"{name}.txt"), "script": EVALUATE}
        lines.append(json.dumps({**case, "path": [str(build), str(ROOT)], "arguments": [str(sample), *flags]}))
    done = run(["-c", SERVE, *lines], root, "")
    assert done.returncode == 0, done.stderr
    return {name: root / name for name in cases}


def run(arguments: list[str], folder: Path, path: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def said(folder: Path) -> str:
    return folder.with_suffix(".txt").read_text()


def result_in(folder: Path) -> dict:
    text = said(folder)
    assert "Traceback" not in text, text
    return json.loads(text.splitlines()[-1])


def test_repaired_builds_give_the_healthy_ones_scores(evaluated):
    healthy = result_in(evaluated["healthy"])
    # the second car is found with IoU 21/40, so both count at 0.5 and one at every higher threshold
    assert healthy["scores"]["segm"]["AP50"] == pytest.approx(100)
    assert 10 < healthy["scores"]["segm"]["AP"] < 90
    assert healthy["boxes"] == [[20, 10, 60, 50]] * 2

    assert result_in(evaluated["repaired"]) == healthy
    assert list(evaluated["repaired"].iterdir()) == []


def test_the_faults_are_real(evaluated):
    assert "ModuleNotFoundError: No module named 'deeplearning'" in said(evaluated["build"])
    text = said(evaluated["numpy"])
    assert "has no attribute 'in1d'" in text or "has no attribute '__dict__'" in text


def test_the_alias_is_the_installed_module_and_yields_to_a_real_one(broken_build, tmp_path):
    # the file alone: without torch this takes a fraction of a second
    load = (
        "import sys, runpy; compat = runpy.run_path(sys.argv[1]); before = list(sys.meta_path); compat['apply']();"
        "print(sorted(type(finder).__name__ for finder in sys.meta_path if finder not in before));"
    )
    script = str(ROOT / "gan_plugin/compat.py")

    aliased = load + (
        "import deeplearning.projects.cityscapesApi.cityscapesscripts.helpers.labels as alias;"
        "import cityscapesscripts.helpers.labels as real;"
        "print(alias is real, real.__spec__.name, real.name2label['car'].id)"
    )
    output = run(["-c", aliased, script], tmp_path, str(broken_build)).stdout.splitlines()
    usual = ["_MovedFinder", "_RepairingFinder"]
    assert output == [str(["_InternalScriptsFinder", *usual]), f"True cityscapesscripts.helpers.labels {CAR}"]

    (tmp_path / "deeplearning" / "projects" / "cityscapesApi").mkdir(parents=True)
    path = os.pathsep.join([str(broken_build), str(tmp_path)])
    assert run(["-c", load, script], tmp_path, path).stdout.strip() == str(usual)


def test_a_healthy_environment_is_left_alone():
    compat.apply()
    finders = list(sys.meta_path)
    compat.apply()
    assert sys.meta_path == finders
    if compat.INTERNAL_SCRIPTS not in (DETECTRON2 / "data/datasets/cityscapes.py").read_text():
        assert find_spec("deeplearning") is None


def test_evaluators_keep_numpy_and_their_other_files(tmp_path):
    import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as official

    compat.apply()
    assert not any("compat" in type(part).__module__ for part in (official.__loader__, official.__spec__.loader))
    assert official.np.unique is np.unique
    official.writeDict2JSON({"AP": 1}, str(tmp_path / "results.json"))
    assert json.loads((tmp_path / "results.json").read_text()) == {"AP": 1}


def test_the_view_of_numpy_is_numpy_with_in1d_and_sums_of_nothing():
    view = compat._NumpyView("numpy")
    assert view.arange is np.arange
    flat = view.in1d(np.array([[1, 2], [3, 4]]), [2, 3])
    assert flat.tolist() == [False, True, True, False]
    assert view.in1d(np.array([1, 2]), [2], invert=True).tolist() == [True, False]
    assert view.cumsum([]).tolist() == [0] and view.cumsum([1, 2]).tolist() == [1, 3]


class TestOlderPyTorch:
    """The stand-ins, where PyTorch lacks what they stand in for, against PyTorch's own."""

    def test_the_norm_of_all_numbers(self, monkeypatch):
        tensors = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0], [12.0]])]
        assert compat.total_norm(tensors).item() == pytest.approx(13)
        monkeypatch.delattr(torch.nn.utils, "get_total_norm", raising=False)
        assert compat.total_norm(tensors).item() == pytest.approx(13)

    def test_whether_autocast_is_on(self, monkeypatch):
        assert not compat.is_autocast_enabled("cpu")
        with torch.autocast("cpu", torch.bfloat16), monkeypatch.context() as older:
            assert compat.is_autocast_enabled("cpu") and not compat.is_autocast_enabled("cuda")
            older.setattr(torch, "is_autocast_enabled", lambda: False)  # of CUDA
            assert compat.is_autocast_enabled("cpu") and not compat.is_autocast_enabled("cuda")

    def test_a_scaler_of_losses(self, monkeypatch):
        for _ in range(2):
            scaler = compat.grad_scaler("cpu", enabled=False)
            assert not scaler.is_enabled() and scaler.scale(torch.tensor(2.0)).item() == 2
            monkeypatch.delattr(torch.amp, "GradScaler", raising=False)

    def test_fused_adam_is_adam_also_where_there_is_none(self):
        class OnGpuOnly(torch.optim.Adam):
            def __init__(self, parameters, fused=None, **options):
                assert list(parameters)
                if fused:
                    raise RuntimeError("`fused=True` requires all the params to be on a GPU")
                super().__init__(parameters, **options)

        weights = []
        for kind in (torch.optim.Adam, OnGpuOnly):
            weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
            optimizer = compat.fused_adam(kind, iter([weight]), lr=0.1, betas=(0.5, 0.9), weight_decay=0.01)
            for _ in range(3):
                optimizer.zero_grad()
                weight.square().sum().backward()
                optimizer.step()
            weights.append(weight.detach())
        torch.testing.assert_close(*weights)


def test_the_loaders_of_newer_detectron2_train_alike(monkeypatch):
    """Upstream's build_batch_data_loader has taken a seed and made the generator itself since; ours does not ask it."""
    build = importlib.import_module("detectron2.data.build")

    def with_its_own_generator(*args, seed=None, **options):
        assert "generator" not in options, "DataLoader() got multiple values for keyword argument 'generator'"
        return build_batches(*args, generator=torch.Generator().manual_seed(seed or 0), **options)

    build_batches = build.build_batch_data_loader
    monkeypatch.setattr(build, "build_batch_data_loader", with_its_own_generator)
    records = [{"file_name": str(number), "width": 2, "height": 1} for number in range(6)]
    loader = ResumableTrainLoader(records, dict, seed=3, total_batch_size=2, aspect_ratio_grouping=True)
    order = list(islice(TrainingSampler(6, seed=3), 6))
    assert [[r["file_name"] for r in batch] for batch in islice(loader, 3)] == [
        [str(order[2 * n]), str(order[2 * n + 1])] for n in range(3)
    ]


@pytest.mark.parametrize("sqrt", [None, True, False])
def test_the_root_of_repeat_factors_is_asked_for_where_there_is_a_key(run_cfg, monkeypatch, sqrt):
    """Upstream got DATALOADER.REPEAT_SQRT and the argument together."""
    asked = {}

    def with_sqrt(dicts, threshold, **options):
        asked.update(options)
        return torch.ones(len(dicts))

    monkeypatch.setattr(RepeatFactorTrainingSampler, "repeat_factors_from_category_frequency", staticmethod(with_sqrt))
    run_cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    run_cfg.DATALOADER.pop("REPEAT_SQRT", None)
    if sqrt is not None:
        run_cfg.DATALOADER.REPEAT_SQRT = sqrt
    next(iter(build_resumable_train_loader(run_cfg)))
    assert asked == ({} if sqrt is None else {"sqrt": sqrt})


def test_try_versions_installs_what_it_is_told_runs_the_core_and_leaves_nothing(tmp_path):
    """With an interpreter that only notes what it is asked to do; its virtual environments hold itself."""
    fake, log, scratch = tmp_path / "python", tmp_path / "log", tmp_path / "scratch"
    scratch.mkdir()
    fake.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {log}\n'
        '[ "$2" != venv ] || { mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; }\n'
    )
    fake.chmod(0o755)
    tool = ["bash", str(ROOT / "tools/try_versions.sh")]
    environment = {key: value for key, value in os.environ.items() if key not in ("KEEP", "TESTS")}
    environment |= {"TMPDIR": str(scratch)}
    versions = ["2.1.0", "0.16.0", "1.26.4", str(fake), "pillow==10.0.0"]
    done = subprocess.run([*tool, *versions], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = log.read_text().splitlines()
    [installs] = [line for line in asked if "-m pip install" in line]
    assert "torch==2.1.0 torchvision==0.16.0 numpy==1.26.4 pillow==10.0.0" in installs
    [tests] = [line for line in asked if "-m pytest" in line]
    core = [word for word in tests.split() if word.startswith("tests/")]
    assert len(core) > 10 and all((ROOT / path).exists() for path in core)
    assert not list(scratch.iterdir())
    usage = subprocess.run([*tool, "2.1.0"], env=environment, capture_output=True, text=True, check=False)
    assert usage.returncode == 2 and "TORCH TORCHVISION NUMPY" in usage.stderr
