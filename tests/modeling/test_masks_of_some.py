"""Boxes for all objects, masks for some: whose loss is whose, what the discriminator is shown, and what boxes teach."""

import copy
import itertools
from contextlib import contextmanager

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from foreign_models import KINDS, foreign_cfg
from small_models import AGNOSTIC, BOTH_PLAYERS, CASCADE, FEATURES, POINT_REND, build, losses_of, small

from gan_plugin.errors import UserError
from gan_plugin.modeling.masks_of_some import taught_masks, teacher_loss
from gan_plugin.modeling.samples import MaskSamples, RealFakePair
from gan_plugin.modeling.sources import watching
from gan_plugin.modeling.unpaired import MaskMemory, pairwise_loss, projection_loss, rgb_to_lab

BOX_ONLY = {"MODEL.GAN.MASK.BOX_ONLY": True, "MODEL.GAN.MASK.MEMORY": 8}
IMAGES = {
    "MODEL.GAN.MASK.DISCRIMINATOR": "MaskedImageDiscriminator",
    "MODEL.GAN.MASK.INPUT_SIZE": 20,
    "MODEL.GAN.MASK.CHANNELS": (8, 8),
    "MODEL.GAN.MASK.OBJECTIVE": "Hinge",
}
PEERS = {"MODEL.GAN.UNPAIRED.PROJECTION_WEIGHT": 1.0, "MODEL.GAN.UNPAIRED.PAIRWISE_WEIGHT": 1.0}
OFF = {"MODEL.GAN.ENABLED": False}
HEADS = {
    "standard": [],
    "agnostic": [AGNOSTIC],
    "cascade": [CASCADE],
    "point_rend": [POINT_REND],
}


def with_masks(inputs, *known):
    """The inputs with one tuple of truth values for the objects of each image; others lose their mask to their box."""
    inputs = copy.deepcopy(inputs)
    for item, has in zip(inputs, known, strict=True):
        truth = item["instances"]
        truth.gt_has_mask = torch.tensor(has, dtype=torch.bool)
        for mask, box, is_known in zip(truth.gt_masks.tensor, truth.gt_boxes.tensor.long(), has, strict=True):
            if not is_known:
                mask[box[1] : box[3], box[0] : box[2]] = True
    return inputs


def samples_of(model, inputs, seed=1):
    """Losses and mask samples of one pass."""
    torch.manual_seed(seed)
    with EventStorage(0):
        losses, pairs = model.generator_forward(inputs)
    return losses, pairs["mask"]


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_of_masks_is_that_of_the_objects_that_have_one(tiny_cfg, make_inputs, head):
    """Against the logits of a pass of the plain model, whose cross entropy is computed here."""
    cfg = small(tiny_cfg, *HEADS[head])
    inputs = make_inputs(2, side=64)
    plain, ours = build(cfg), build(small(tiny_cfg, *HEADS[head], BOX_ONLY))
    torch.manual_seed(1)
    with EventStorage(0), watching(plain.source, plain, False) as found:
        theirs = super(type(plain).__mro__[1], plain).forward(with_masks(inputs, (1, 1, 1), (1, 1, 1)))
    drawn = found(torch.stack(list(theirs.values())).sum())["mask"]
    for known in ((1, 0, 0), (0, 1, 0)), ((0, 0, 0), (1, 0, 1)):
        losses, pair = samples_of(ours, with_masks(inputs, *known))
        counts = torch.tensor([[*known[0]], [*known[1]]]).bool()
        assert all(losses[name].equal(theirs[name]) for name in theirs if "mask" not in name)
        if head != "point_rend":
            images = drawn.rois[:, 0].long()
            boxes = torch.stack([item["instances"].gt_boxes.tensor for item in inputs])
            # which object a proposal is of: the truth that it carries
            of = torch.stack([_iou(box[1:], boxes[int(box[0])]) for box in drawn.rois]).argmax(1)
            rows = counts[images, of]
            expected = torch.nn.functional.binary_cross_entropy_with_logits(drawn.logits[rows], drawn.truth[rows])
            torch.testing.assert_close(losses["loss_mask"], expected, rtol=1e-5, atol=1e-6)
            assert len(pair.samples) <= len(drawn)


def _iou(box, others):
    both = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0).prod(1)
    return both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - both)


RES5 = {
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32]],
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
}
FOREIGN = {kind: keys for kind, keys in KINDS.items() if "queries" not in kind} | {"C4": [RES5]}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("enabled", [False, True], ids=["plain", "game"])
def test_no_gradient_comes_from_the_truth_of_an_object_without_a_mask(make_inputs, kind, enabled):
    """What stands in for it may be anything, whoever wrote the model."""
    pixels = {
        "MODEL.GAN.MASK.DISCRIMINATOR": "PixelMaskDiscriminator",
        "MODEL.GAN.MASK.OBJECTIVE": "Hinge",
        "MODEL.GAN.MASK.INPUT_SIZE": 32,
        "MODEL.GAN.MASK.BOX_ONLY": True,
    }
    cfg = foreign_cfg(*FOREIGN[kind], pixels, enabled=enabled)
    inputs = with_masks(make_inputs(2, side=64), (1, 0, 0), (0, 0, 1))
    other = copy.deepcopy(inputs)
    other[0]["instances"].gt_masks.tensor[1:] = torch.rand(2, 64, 64) > 0.3
    gradients = []
    for batch in (inputs, other):
        for item in batch:
            item["sem_seg"] = torch.zeros(64, 64, dtype=torch.long)
        model = build(cfg)
        losses = losses_of(model, batch)
        assert losses["loss_mask"] > 0
        sum(losses.values()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_models_without_a_mask_branch_are_refused_before_their_first_step():
    for kind in ("queries", "queries, features"):
        for enabled in (False, True):
            with pytest.raises(UserError, match="MODEL.GAN.MASK.BOX_ONLY is for"):
                build(foreign_cfg(*KINDS[kind], {"MODEL.GAN.MASK.BOX_ONLY": True}, enabled=enabled))


ALL = {**BOTH_PLAYERS, **PEERS}


@pytest.mark.parametrize(
    "game, head",
    [
        (OFF, "standard"),
        (IMAGES, "agnostic"),
        (OFF | PEERS, "cascade"),
        (ALL, "standard"),
        (ALL, "point_rend"),
    ],
)
def test_any_mixture_of_objects_reaches_every_parameter(tiny_cfg, make_inputs, head, game):
    """None, some or all with masks in either image, and an image without objects; so no process waits for another."""
    model = build(small(tiny_cfg, game, *HEADS[head], BOX_ONLY))
    for count, first, second in [(0, 0, 0), *itertools.product([2], (0, 1), (0, 1))]:
        inputs = with_masks(make_inputs(2, instances=count, side=64), (first, 0)[:count], (second, second)[:count])
        losses = losses_of(model, inputs)
        assert all(torch.isfinite(loss) for loss in losses.values())
        if not (first or second):
            assert losses["loss_mask"] == 0 and losses["loss_mask"].requires_grad
        for parameter in model.parameters():
            parameter.grad = None
        sum(losses.values()).backward()
        missing = [name for name, p in model.named_parameters() if p.grad is None and "adversaries" not in name]
        assert missing == []


def test_what_needs_each_masks_own_truth_is_refused(tiny_cfg):
    for keys, sentence in (
        (FEATURES, "DISCRIMINATOR .* sees features"),
        ({"MODEL.GAN.MASK.OBJECTIVE": "MultiLayerL1"}, "OBJECTIVE"),
    ):
        with pytest.raises(UserError, match=sentence):
            build(small(tiny_cfg, BOX_ONLY, keys))


@pytest.mark.parametrize("game", [OFF, {}], ids=["plain", "game"])
def test_where_all_objects_have_masks_nothing_changes(tiny_cfg, inputs, game):
    plain, ours = build(small(tiny_cfg, game)), build(small(tiny_cfg, game, BOX_ONLY))
    theirs, losses = losses_of(plain, inputs), losses_of(ours, with_masks(inputs, (1, 1, 1), (1, 1, 1)))
    own = [name for name in theirs if not name.startswith(("loss_adv", "loss_disc"))]
    assert theirs.keys() == losses.keys()
    assert all(torch.equal(theirs[name], losses[name]) for name in own)


def test_a_discriminator_meets_masks_that_exist_beside_predictions_of_all(tiny_cfg, make_inputs):
    model = build(small(tiny_cfg, BOX_ONLY, {"MODEL.GAN.MASK.MEMORY": 64, "MODEL.GAN.MASK.REC_WEIGHT": 0.0}))
    inputs = make_inputs(2, side=64)
    # class 0, 1, 0 in each image; no mask of class 1 yet
    _, first = samples_of(model, with_masks(inputs, (1, 0, 0), (0, 0, 0)))
    assert len(first) and set(first.samples.classes.tolist()) == {0}
    assert len(first.real) == len(first.fake) == len(first)
    _, second = samples_of(model, with_masks(inputs, (0, 0, 0), (0, 1, 0)))
    assert set(second.samples.classes.tolist()) == {0, 1}
    _, third = samples_of(model, with_masks(inputs, (0, 0, 0), (0, 0, 0)))
    memory = model.adversaries["mask"].memory
    known = memory.inputs[memory.classes >= 0].flatten(1)
    for real, number in zip(third.real.flatten(1), third.samples.classes, strict=True):
        same = (known == real).all(1).nonzero().flatten()
        assert len(same) and number in memory.classes[same]
    # a real mask is none of the boxes that stand in for those that are missing
    assert not any((real > 0).all() for real in third.real)


def test_an_adversary_pulls_where_the_head_learns_nothing_by_itself(tiny_cfg, make_inputs):
    model = build(small(tiny_cfg, BOX_ONLY, IMAGES, {"MODEL.GAN.BALANCE.SHARE": 0.5}))
    inputs = make_inputs(2, side=64)
    for known, pulls in (((0, 0, 0), False), ((1, 1, 1), True), ((0, 0, 0), True)):
        losses = losses_of(model, with_masks(inputs, known, known))
        (gradient,) = torch.autograd.grad(losses["loss_adv_mask"], model.roi_heads.mask_head.predictor.weight)
        assert bool(gradient.any()) is pulls


def _pair(classes, known, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(len(classes), 2, 2, generator=generator)
    has = torch.tensor(known, dtype=torch.bool)
    samples = MaskSamples(masks, masks, has, torch.tensor(classes), torch.zeros(len(classes), 5), has_mask=has)
    return RealFakePair(masks[:, None], masks[:, None] + 1, samples)


def test_a_resumed_memory_goes_on_as_it_would_have():
    torch.manual_seed(3)
    memory, resumed = MaskMemory(5, 1, 2), MaskMemory(5, 1, 2)
    pairs = [_pair([0, 1, 0, 1], [1, 1, 0, seed % 2], seed) for seed in range(6)]
    with EventStorage(0):
        for pair in pairs[:3]:
            memory(pair, RealFakePair.unseen)
        resumed.load_state_dict(copy.deepcopy(memory.state_dict()))
        state = torch.get_rng_state()
        unbroken = [memory(pair, RealFakePair.unseen).real for pair in pairs[3:]]
        torch.set_rng_state(state)
        again = [resumed(pair, RealFakePair.unseen).real for pair in pairs[3:]]
        assert all(torch.equal(a, b) for a, b in zip(unbroken, again, strict=True))
    # a ring: the last five real samples
    seen = torch.cat([pair.real[pair.samples.known] for pair in pairs])[-5:]
    assert sorted(memory.inputs.flatten().tolist()) == sorted(seen.flatten().tolist())


def test_projection_by_hand():
    """A mask of certain pixels in a 4x4 grid: rows of the box 1 to 2, columns 0 to 2."""
    box = torch.zeros(1, 4, 4)
    box[0, 1:3, 0:3] = 1
    mask = torch.full((1, 4, 4), -1e4)
    assert projection_loss(torch.where(box > 0, 1e4, -1e4), box) == 0
    # a diagonal that touches all four sides suffices
    for row, column in ((1, 0), (2, 1), (2, 2)):
        mask[0, row, column] = 1e4
    assert projection_loss(mask, box) == 0
    # one column is missed: 1 - 2 * 2 / (2 + 3) on one axis, 0 on the other
    mask[0, 2, 2] = -1e4
    assert projection_loss(mask, box).item() == pytest.approx(1 - 4 / 5, abs=1e-6)
    # one row too many, of half certainty: 1 - 2 * 2 / (2 + 0.25 + 2)
    mask[0, 2, 2], mask[0, 3, 0] = 1e4, 0.0
    assert projection_loss(mask, box).item() == pytest.approx(1 - 4 / 4.25, abs=1e-6)


@pytest.mark.parametrize("dilation", [1, 2])
def test_pairwise_is_the_mean_over_all_edges(dilation):
    """Every pixel with each of its eight neighbours, one by one."""
    generator = torch.Generator().manual_seed(dilation)
    logits = torch.randn(2, 5, 5, generator=generator, requires_grad=True)
    boxes = torch.zeros(2, 5, 5)
    boxes[0, 1:4, 0:3], boxes[1, 2:, 3:] = 1, 1
    colours = torch.rand(2, 3, 5, 5, generator=generator) * 4
    total, edges = 0.0, 0
    for n, y, x, dy, dx in itertools.product(range(2), range(5), range(5), (-1, 0, 1), (-1, 0, 1)):
        v, u = y + dy * dilation, x + dx * dilation
        if (dy, dx) == (0, 0) or not (0 <= v < 5 and 0 <= u < 5) or not (boxes[n, y, x] or boxes[n, v, u]):
            continue
        edges += 1
        if torch.exp(-(colours[n, :, y, x] - colours[n, :, v, u]).norm() / 2) >= 0.3:
            a, b = logits[n, y, x].sigmoid(), logits[n, v, u].sigmoid()
            total = total - torch.log(a * b + (1 - a) * (1 - b))
    loss = pairwise_loss(logits, boxes, colours, 0.3, dilation)
    torch.testing.assert_close(loss, total / edges)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, total / edges)))


def test_neighbours_lie_on_the_grid():
    grid = torch.zeros(1, 4, 4)
    assert pairwise_loss(grid, grid + 1, torch.zeros(1, 3, 4, 4), dilation=3) > 0
    with pytest.raises(UserError, match="PAIRWISE_DILATION is 4, but the mask head draws 4"):
        pairwise_loss(grid, grid + 1, torch.zeros(1, 3, 4, 4), dilation=4)


def test_lab_is_that_of_opencv():
    cv2 = pytest.importorskip("cv2")
    pictures = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    pictures[0, :, 0, 0], pictures[0, :, 0, 1] = 0.0, 1.0
    ours = rgb_to_lab(pictures).permute(0, 2, 3, 1).numpy()
    theirs = [cv2.cvtColor(picture.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB) for picture in pictures]
    # OpenCV works with a table
    assert abs(ours - theirs).max() < 0.5


TEACHER = {"MODEL.GAN.UNPAIRED.TEACHER_WEIGHT": 1.0, "MODEL.GAN.UNPAIRED.TEACHER_CONFIDENCE": 0.5, **OFF}


def of_average(model, average):
    """What a trainer lends: a block in which the model holds the weights of another one."""

    @contextmanager
    def held():
        own = copy.deepcopy(model.state_dict())
        model.load_state_dict(average.state_dict())
        yield
        model.load_state_dict(own)

    return held


@pytest.mark.parametrize("head", HEADS)
def test_a_teacher_draws_in_the_boxes_of_objects_without_a_mask(tiny_cfg, make_inputs, head):
    """Against what another model, which is the average here, draws in these boxes at inference."""
    cfg = small(tiny_cfg, *HEADS[head], BOX_ONLY, TEACHER)
    model, average = build(cfg), build(cfg, seed=5)
    inputs = with_masks(make_inputs(2, side=64), (1, 1, 1), (1, 0, 0))
    with pytest.raises(UserError, match="AdversarialTrainer"):
        losses_of(model, inputs)
    model.average = of_average(model, average)
    frozen = model.backbone.fpn_lateral2.eval()
    before = copy.deepcopy(model.state_dict())
    losses = losses_of(model, inputs)
    assert not frozen.training and model.roi_heads.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert losses["loss_teacher"] > 0 and not inputs[0]["instances"].has("gt_taught")
    taught = inputs[1]["instances"].gt_taught
    truth = inputs[1]["instances"]
    given = Instances(truth.image_size, pred_boxes=truth.gt_boxes, pred_classes=truth.gt_classes)
    with torch.no_grad():
        (expected,) = average.eval().inference(inputs[1:], [given], do_postprocess=False)
    assert torch.equal(taught, expected.pred_masks[:, 0])
    # in the annotated box itself it is what the teacher drew, in a box beside it nothing
    image = Instances(truth.image_size, gt_boxes=truth.gt_boxes, gt_taught=taught)
    image.proposal_boxes = truth.gt_boxes
    torch.testing.assert_close(taught_masks(image, taught.shape[-1]), taught, atol=1e-4, rtol=0)
    image.proposal_boxes = Boxes(truth.gt_boxes.tensor + 100)
    assert not taught_masks(image, 14).any()
    # twice as wide to the right: the left half of what is seen
    wide = truth.gt_boxes.tensor.clone()
    wide[:, 2] += wide[:, 2] - wide[:, 0]
    image.proposal_boxes = Boxes(wide)
    side = taught.shape[-1]
    halves = taught_masks(image, 2 * side)[:, ::2, :side]
    assert (halves[:, :, 1:-1] - taught[:, :, 1:-1]).abs().max() < 0.3 and not taught_masks(image, side)[
        :, :, side // 2 + 1 :
    ].any()


def test_a_teacher_is_heard_where_it_is_sure_and_believed():
    logits = torch.tensor([[[2.0, -1.0], [0.5, 3.0]]], requires_grad=True)
    taught = torch.tensor([[[0.9, 0.7], [0.1, 0.95]]])
    sure = torch.log1p(torch.exp(-logits[0, 0, 0])) + torch.log1p(torch.exp(logits[0, 1, 0]))
    more = sure + torch.log1p(torch.exp(-logits[0, 1, 1]))
    torch.testing.assert_close(teacher_loss(logits, taught, 0.8), more / 4)
    believed = torch.tensor([[[True, True], [True, False]]])
    torch.testing.assert_close(teacher_loss(logits, taught, 0.8, believed), sure / 4)


@pytest.mark.parametrize("judge", ["PixelMaskDiscriminator", "PatchMaskDiscriminator"])
def test_a_discriminator_filters_what_the_teacher_says(tiny_cfg, make_inputs, judge):
    """A verdict of certain falsehood leaves nothing, one of half its pixels half of them, one of truth all."""
    keys = {**TEACHER, "MODEL.GAN.ENABLED": True, "MODEL.GAN.UNPAIRED.TEACHER_TRUST": 0.5}
    keys |= {"MODEL.GAN.MASK.DISCRIMINATOR": judge}
    inputs = with_masks(make_inputs(1, side=64), (1, 0, 0))
    found = {}
    for verdict in (-9.0, 9.0, "halves"):
        model = build(small(tiny_cfg, BOX_ONLY, keys))
        model.average = of_average(model, build(small(tiny_cfg, BOX_ONLY, keys), seed=5))

        def judged(module, arguments, output, verdict=verdict):
            if verdict != "halves":
                return output * 0 + verdict
            signs = torch.ones_like(output)
            signs[..., : output.shape[-1] // 2] = -1
            return output * 0 + 9 * signs

        model.adversaries["mask"].discriminator.register_forward_hook(judged)
        with EventStorage(0) as storage:
            torch.manual_seed(1)
            losses, _ = model.generator_forward(copy.deepcopy(inputs))
            found[verdict] = losses["loss_teacher"].item(), storage.latest()["gan/mask/believed"][0]
    assert found[-9.0] == (0, 0) and found[9.0][0] > 0 and found[9.0][1] == 1
    if judge == "PatchMaskDiscriminator":
        assert 0 < found["halves"][0] < found[9.0][0] and found["halves"][1] == 0.5


@pytest.mark.parametrize("share", [0.1, 0.0])
@pytest.mark.parametrize("reach", ["all", "head"])
def test_a_class_without_any_mask_takes_the_pull_from_no_other(tiny_cfg, make_inputs, share, reach):
    """Fakes of a class of which no real mask has been seen are left out; the others are pulled at."""
    keys = {"MODEL.GAN.MASK.BOX_ONLY": True, "MODEL.GAN.BALANCE.SHARE": share, "MODEL.GAN.MASK.REACH": reach}
    model, inputs = build(small(tiny_cfg, keys)), make_inputs(2, side=64)
    for item in inputs:
        item["instances"].gt_has_mask = item["instances"].gt_classes == 0
    losses_of(model, inputs)["loss_adv_mask"].backward()
    # of the two classes' layers
    pulled = model.roi_heads.mask_head.predictor.weight.grad.flatten(1).norm(dim=1)
    assert pulled[0] > 0 == pulled[1]
