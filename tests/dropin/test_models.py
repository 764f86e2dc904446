"""Models of other projects with one key: what they had stays what it was, and the game is played beside it."""

import copy
import itertools
import pickle

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from foreign_models import KINDS, LAYERS, foreign_cfg
from small_models import build, losses_of, make_inputs
from support import in_two_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gan_plugin import UserError
from gan_plugin.engine.export import read_generator, write_weights
from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.steps import AlternatingStep
from gan_plugin.modeling.meta_arch import discriminator_parameters

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def batch(make_inputs):
    """Two images, with semantic truth for whoever wants it."""
    found = make_inputs(2, side=64)
    for item in found:
        item["sem_seg"] = item["instances"].gt_masks.tensor.any(0).long()
    return found


def of_the_game(losses):
    return {name for name in losses if name.startswith(("loss_adv_", "loss_rec_", "loss_disc_"))}


def touched(model):
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


def predictions(model, batch):
    with torch.no_grad():
        outputs = model.eval()([{key: item[key] for key in ("image", "height", "width")} for item in batch])
    flat = []
    for output in outputs:
        for name, value in sorted(output.items()):
            if name == "instances":
                flat += [getattr(v, "tensor", v) for _, v in sorted(value.get_fields().items())]
            elif isinstance(value, torch.Tensor):
                flat.append(value)
    return flat


def own_class(cfg):
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)


@each_kind
def test_three_joint_iterations_in_a_loop_of_ones_own(kind, batch):
    """With the plain model's losses bit for bit, and each gradient where it belongs."""
    cfg = foreign_cfg(*KINDS[kind])
    model, plain = build(cfg), build(foreign_cfg(*KINDS[kind], enabled=False))
    assert isinstance(model, own_class(cfg)) and type(plain) is own_class(cfg)
    players = ["mask", "box"] if cfg.MODEL.GAN.BOX.ENABLED else ["mask"]
    losses, expected = losses_of(model, batch), losses_of(plain, batch)
    assert of_the_game(losses) == losses.keys() - expected.keys()
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    disc = {name for name, _ in model.named_parameters() if name.startswith("adversaries.")}
    for player in players:
        losses[f"loss_adv_{player}"].backward(retain_graph=True)
        pulled = touched(model)
        assert pulled and not pulled & disc and "backbone.bottom_up.res2.0.conv1.weight" in pulled
        assert player == "box" or f"{LAYERS[kind]}.weight" in pulled
        model.zero_grad()
    sum(losses[f"loss_disc_{player}"] for player in players).backward()
    assert touched(model) and touched(model) <= disc
    optimizer = torch.optim.SGD(model.parameters(), 0.002)
    before = copy.deepcopy(model.state_dict())
    with EventStorage(0):
        for _ in range(3):
            losses = model(batch)
            assert all(loss.isfinite() for loss in losses.values())
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved & disc and f"{LAYERS[kind]}.weight" in moved


@each_kind
def test_three_alternating_iterations(kind, batch):
    cfg = foreign_cfg(*KINDS[kind], {"MODEL.GAN.MODE": "alternating"})
    model = build(cfg)
    players = discriminator_parameters(model)
    optimizers = build_generator_optimizer(cfg, model, exclude=players), build_discriminator_optimizer(cfg, players)
    with pytest.raises(UserError, match="needs gan_plugin.AdversarialTrainer"):
        losses_of(model, batch)
    step = AlternatingStep(model, itertools.cycle([batch]), *optimizers)
    # a hook between two steps, which looks at the losses of a validation set, gets the model's own
    assert not of_the_game(losses_of(model, batch))
    before = copy.deepcopy(model.state_dict())
    with EventStorage(0) as storage:
        for step.iter in range(3):
            step.run_step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert f"{LAYERS[kind]}.weight" in moved and any(name.startswith("adversaries.") for name in moved)
    assert storage.latest()["loss_adv_mask"][0] > 0 and storage.latest()["loss_disc_mask"][0] != 0


@each_kind
def test_switched_off_it_equals_itself_bit_for_bit(kind, batch):
    """Also the model that is built from a config without our keys."""
    cfg = foreign_cfg(*KINDS[kind], enabled=False)
    bare = cfg.clone()
    for node, known in ((bare, get_cfg()), (bare.MODEL, get_cfg().MODEL), (bare.SOLVER, get_cfg().SOLVER)):
        for name in [name for name in node if name not in known and name not in ("POINT_HEAD", "EDGE_WEIGHT")]:
            del node[name]
    ours, theirs = build(cfg), build(bare)
    assert type(ours) is type(theirs) is own_class(cfg)
    for a, b in itertools.zip_longest(ours.modules(), theirs.modules()):
        assert (
            type(a) is type(b) and not (a._forward_hooks or a._forward_pre_hooks) and vars(a).keys() == vars(b).keys()
        )
    losses, expected = losses_of(ours, batch), losses_of(theirs, batch)
    assert losses.keys() == expected.keys() and all(torch.equal(losses[name], expected[name]) for name in losses)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for (name, a), (same, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == same and ((a.grad is b.grad is None) or torch.equal(a.grad, b.grad)), name


@each_kind
def test_what_is_exported_is_the_projects_own_model(kind, batch, tmp_path):
    cfg = foreign_cfg(*KINDS[kind])
    model = build(cfg)
    torch.save({"model": model.state_dict(), "iteration": 3}, tmp_path / "model_final.pth")
    write_weights(read_generator(tmp_path / "model_final.pth"), tmp_path / "generator.pth")
    plain = build(foreign_cfg(*KINDS[kind], enabled=False), seed=5)
    plain.load_state_dict(torch.load(tmp_path / "generator.pth", weights_only=True)["model"], strict=True)
    ours, theirs = predictions(model, batch), predictions(plain, batch)
    assert len(ours) == len(theirs) > 0 and any(len(value) for value in ours)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    # nothing is left on the model between two forward passes, so that it can be copied, scripted and compiled
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["plain", "queries"])
@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_validation_losses_are_the_models_own(kind, mode, batch):
    """What a hook sees that calls the model in training mode without gradients; it leaves the discriminator alone."""
    keys = {"MODEL.GAN.MODE": mode, "MODEL.GAN.MASK.NORM": "BN"}
    model, plain = build(foreign_cfg(*KINDS[kind], keys)), build(foreign_cfg(*KINDS[kind], enabled=False))
    before = copy.deepcopy(model.adversaries.state_dict())
    with torch.no_grad():
        losses, expected = losses_of(model, batch), losses_of(plain, batch)
    assert losses == expected and losses
    assert all(torch.equal(value, before[name]) for name, value in model.adversaries.state_dict().items())


@pytest.mark.parametrize("kind", ["plain", "own registry and tuples", "class-agnostic", "queries", "queries, features"])
def test_images_without_objects_give_zeros(kind, make_inputs):
    model = build(foreign_cfg(*KINDS[kind]))
    for counts in ((0, 0), (0, 2)):
        losses = losses_of(model, [make_inputs(1, count, side=64)[0] for count in counts])
        assert all(loss.isfinite() for loss in losses.values())
        assert (losses["loss_disc_mask"].item() == 0) == (counts == (0, 0))
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in discriminator_parameters(model))


def test_a_loop_without_an_event_storage(batch):
    """Query-based models need none; the ramp then counts the calls."""
    model = build(foreign_cfg(*KINDS["queries"], {"MODEL.GAN.START_ITER": 1}))
    first, second = model(batch), model(batch)
    assert first["loss_adv_mask"] == 0 < second["loss_adv_mask"]


def train_on_images_of_its_own(folder):
    """In each of two processes a loop of its author's: the first sees objects, the other's first image has none."""
    rank = comm.get_rank()
    for kind in ("own meta-architecture", "own registry and tuples", "own cascade", "panoptic", "queries"):
        # the small query-based model has layers that it does not use, with us and without
        model = DistributedDataParallel(build(foreign_cfg(*KINDS[kind])), find_unused_parameters=kind == "queries")
        optimizer = torch.optim.SGD(model.parameters(), 0.002)
        with EventStorage(0):
            for number in range(2):
                item = make_inputs(1, 2 if number >= rank else 0, seed=2 * number + rank, side=64)[0]
                item["sem_seg"] = item["instances"].gt_masks.tensor.any(0).long()
                losses = model([item])
                optimizer.zero_grad()
                sum(losses.values()).backward()
                optimizer.step()
        torch.save(model.module.state_dict(), folder / f"{kind}.{rank}")


def test_two_processes_stay_one_model(tmp_path):
    in_two_processes(train_on_images_of_its_own, tmp_path)
    firsts = sorted(tmp_path.glob("*.0"))
    assert len(firsts) == 5
    for path in firsts:
        first, second = (torch.load(path.with_suffix(f".{rank}"), weights_only=True) for rank in range(2))
        start = build(foreign_cfg(*KINDS[path.stem])).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in start), path.stem
        assert any(not torch.equal(first[name], start[name]) for name in start if name.startswith("adversaries."))


def test_a_compiled_backbone_and_a_copied_model(batch):
    model = build(foreign_cfg(*KINDS["own meta-architecture"]))
    expected = losses_of(copy.deepcopy(model), batch)
    torch.testing.assert_close(losses_of(pickle.loads(pickle.dumps(model)), batch), expected)
    model.backbone = torch.compile(model.backbone, backend="eager")
    losses = losses_of(model, batch)
    assert losses.keys() == expected.keys() and "loss_adv_mask" in losses
    torch.testing.assert_close(losses, expected)


def test_a_named_layer_and_its_refusals(batch):
    named = build(foreign_cfg({"MODEL.GAN.MASK.LOGITS": "mask_head.predictor"}))
    found = build(foreign_cfg())
    assert losses_of(named, batch) == losses_of(found, batch)
    with pytest.raises(UserError, match="MASK.LOGITS is 'mask_head.nothing', and the model has no such layer"):
        build(foreign_cfg({"MODEL.GAN.MASK.LOGITS": "mask_head.nothing"}))
    with pytest.raises(UserError, match="The layer roi_heads.box_head.fc1 draws no square masks"):
        losses_of(build(foreign_cfg({"MODEL.GAN.MASK.LOGITS": "box_head.fc1"})), batch)


@pytest.mark.parametrize(
    "keys, sentence",
    [
        ({"MODEL.MASK_ON": False}, "needs a mask head to observe, and StandardROIHeads has none"),
        ({"MODEL.META_ARCHITECTURE": "ProposalNetwork"}, "no source of samples .* knows where ProposalNetwork draws"),
        (
            {"MODEL.META_ARCHITECTURE": "SmallMaskFormer", "MODEL.GAN.BOX.ENABLED": True},
            "BOX.ENABLED is for models with RoI heads",
        ),
    ],
)
def test_what_cannot_be_observed_is_refused_when_it_is_built(keys, sentence):
    with pytest.raises(UserError, match=sentence):
        build(foreign_cfg(keys))


def test_data_without_masks_is_refused(batch):
    for item in batch:
        item["instances"].remove("gt_masks")
        item["instances"].gt_points = torch.zeros(len(item["instances"]), 10, 2)
    model = build(foreign_cfg({"MODEL.ROI_MASK_HEAD.NAME": "PointSupervisedMaskHead"}))
    with pytest.raises(UserError, match="needs annotated masks to learn from, and .* have only gt_.*gt_points"):
        losses_of(model, batch)


class Doubled(nn.Module):
    """A mask head whose layer draws twice as many masks as there are proposals."""

    def __init__(self):
        super().__init__()
        self.predictor = nn.Conv2d(16, 2, 1)

    def forward(self, x, instances):
        return {"loss_mask": self.predictor(torch.cat([x, x])).square().mean()}


def test_masks_without_a_proposal_are_refused(batch):
    model = build(foreign_cfg())
    model.roi_heads.mask_head = Doubled()
    with pytest.raises(UserError, match=r"has drawn \d+ masks of \d+ foreground proposals"):
        losses_of(model, batch)


def test_samples_of_queries_are_what_lies_in_the_objects_boxes(make_inputs):
    """Worked by hand: a mask that is drawn as the truth is cut as the truth is; a margin shows more of both."""
    keys = [*KINDS["queries"], {"MODEL.GAN.MASK.INPUT_SIZE": 32}]
    inputs = make_inputs(1, 2, side=64)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 16:32, 8:40] = True
    masks[1, 32:64, 32:64] = True
    inputs[0]["instances"].gt_masks.tensor = masks
    for margin, inside in ((0.0, 1.0), (0.25, 1 / 1.5**2)):
        model = build(foreign_cfg(*keys, {"MODEL.GAN.MASK.MARGIN": margin}))
        drawn = torch.full((1, 5, 16, 16), -9.0)
        # the criterion matches query 1 to the first object and query 0 to the second
        for query, mask in zip((1, 0), masks, strict=True):
            drawn[0, query][mask[::4, ::4]] = 9.0
        weight = drawn.requires_grad_(True)
        model.sem_seg_head.predictor.forward = lambda *a, w=weight: {"pred_masks": w * 1, "aux_outputs": []}
        with EventStorage(0):
            samples = model.generator_forward(inputs)[1]["mask"].samples
        assert samples.logits.shape == samples.truth.shape == (2, 32, 32)
        assert samples.truth[0].mean().item() == pytest.approx(inside, abs=0.03)
        if not margin:
            assert samples.rois.tolist() == [[0, 8, 16, 40, 32], [0, 32, 32, 64, 64]]
        assert ((samples.logits > 0).float() - samples.truth).abs().mean() < 0.1
        (reached,) = torch.autograd.grad(samples.logits.sum(), weight)
        assert reached[0, :2].any() and not reached[0, 2:].any()


def test_queries_pull_by_their_share(batch):
    """Measured where the masks are drawn: a tenth of the model's own gradient there."""
    model = build(foreign_cfg(*KINDS["queries"]))
    with EventStorage(0):
        losses, pairs = model.generator_forward(batch)
        game = model.adversarial_losses(pairs)
    drawn = pairs["mask"].samples.drawn
    own, pull = (
        torch.autograd.grad(sum(part.values()), drawn, retain_graph=True)[0].norm().item() for part in (losses, game)
    )
    assert drawn.shape == (2, 5, 16, 16) and pull == pytest.approx(0.1 * own, rel=1e-3)
