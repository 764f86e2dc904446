"""Every kind of step with a GradScaler that scales, against the same step without one.

The arithmetic stays in float32, where a power of two scales exactly: weights, optimizer states and recorded norms must
be equal bit for bit. bfloat16 shows which losses would start their gradients in half precision.
"""

import itertools
from functools import partial

import pytest
import torch
from car_gan.config import load_config
from car_gan.networks.build import Networks
from detectron2.utils.events import EventStorage
from one_game import CROPS, NoNormGame
from small_models import AGNOSTIC, BOTH_PLAYERS, FEATURES, POINT_REND, build, small
from support import assert_same
from torch import nn

from gan_plugin.compat import fused_adam
from gan_plugin.engine import image_game, steps
from gan_plugin.engine.check_config import NonFiniteLossError
from gan_plugin.engine.image_game import ImageGame, ImageStep, Phase
from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.modeling.duel import Duel
from gan_plugin.modeling.meta_arch import discriminator_parameters, discriminators_of, generator_parameters
from gan_plugin.modeling.objectives import OBJECTIVE_REGISTRY

pytestmark = pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="scales on a GPU only before PyTorch 2.3")
SCALE = 2.0**12
STEPS = 2


class ClippedAdam(torch.optim.Adam):
    """Clips the norm of all gradients together within its step, as projects of Detectron2 do."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 0.01)
        return super().step(closure)


def scaler(**changes):
    return torch.amp.GradScaler("cpu", **{"init_scale": SCALE, "growth_interval": STEPS, **changes})


def mask_rcnn_step(cfg, inputs, order, *, disc_steps=1, accumulate=1, closed=False, clipped=False):
    """-> a function of the scaler that builds the step anew."""

    def make(grad_scaler=None):
        model = build(cfg)
        if closed:
            model.adversaries["mask"].gate.limit = -1.0
        options = {"accumulate": accumulate, "grad_scaler": grad_scaler}
        data, disc = itertools.cycle([[image] for image in inputs]), discriminator_parameters(model)
        if order == "joint":
            return JointStep(model, data, build_generator_optimizer(cfg, model), **options)
        if clipped:
            players = [fused_adam(ClippedAdam, part, lr=0.01) for part in (generator_parameters(model), disc)]
        else:
            players = [build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)]
        return AlternatingStep(model, data, *players, order, disc_steps, **options)

    return make


SMALLER = {"MODEL.GAN.MASK.INPUT_SIZE": 16, "MODEL.GAN.MASK.CHANNELS": (4, 8, 8), "MODEL.GAN.BOX.CHANNELS": (8,)}
REGULARISED = {"MODEL.GAN.REG.R1_GAMMA": 1.0, "MODEL.GAN.REG.GP_WEIGHT": 1.0, "MODEL.GAN.REG.EVERY": 2}
# shares are the default
ABSOLUTE = {"MODEL.GAN.BALANCE.SHARE": 0.0}
SGD = {"SOLVER.OPTIMIZER": "sgd", "SOLVER.DISC.OPTIMIZER": "sgd", "SOLVER.DISC.WEIGHT_DECAY": 0.1}
CLIPPED = {**SGD, "SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01}
LATE = {**SGD, "MODEL.GAN.START_ITER": 1}
GATED = {**SGD, "MODEL.GAN.GATE_ACCURACY": 0.99}
# name -> changes of the config, arguments of the step, objects in an image
KINDS = {
    "joint": ([BOTH_PLAYERS, CLIPPED], {"order": "joint", "accumulate": 2}, 3),
    "joint, late": ([LATE], {"order": "joint"}, 3),
    "joint, plain": ([{"MODEL.GAN.ENABLED": False}], {"order": "joint"}, 3),
    "thesis": ([], {"order": "thesis", "clipped": True}, 3),
    "thesis, absolute weights": ([ABSOLUTE], {"order": "thesis", "clipped": True}, 3),
    "thesis, several steps": ([BOTH_PLAYERS, REGULARISED, SGD], {"order": "thesis", "disc_steps": 2}, 3),
    "thesis, late": ([LATE], {"order": "thesis", "disc_steps": 2}, 3),
    "thesis, no objects": ([BOTH_PLAYERS, SGD], {"order": "thesis"}, 0),
    "thesis, closed gate": ([BOTH_PLAYERS, GATED], {"order": "thesis", "closed": True}, 3),
    "paper": ([BOTH_PLAYERS, REGULARISED], {"order": "paper", "accumulate": 2}, 3),
    "paper, several steps": ([CLIPPED], {"order": "paper", "disc_steps": 3}, 3),
    "paper, no objects": ([SGD], {"order": "paper", "disc_steps": 2}, 0),
    "paper, closed gate": ([GATED], {"order": "paper", "closed": True}, 3),
}


class Vectors(ImageGame):
    """Linear players on vectors; a lazy phase shares the discriminator's optimizer."""

    def __init__(self, simultaneous):
        super().__init__()
        self.generator, self.critic = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6)), nn.Linear(6, 1)
        self.simultaneous = simultaneous

    def phases(self):
        disc = fused_adam(torch.optim.Adam, self.critic.parameters(), lr=0.01, weight_decay=0.1)
        gen = torch.optim.SGD(self.generator.parameters(), 0.1, momentum=0.9)
        lazy = Phase("lazy", [self.critic], disc, lambda _: {"loss_disc_lazy": self.critic.weight.square().sum()}, 2, 3)
        return [
            Phase("discriminator", [self.critic], disc, self._disc, clip_value=0.1),
            *([] if self.simultaneous else [lazy]),
            Phase("generator", [self.generator], gen, self._gen, clip_norm=0.1),
        ]

    def collate(self, items):
        return torch.stack(items)

    def begin(self, batch, iteration, keep_graph):
        return batch, self.generator(torch.randn(len(batch), 2))

    def _disc(self, shared):
        fake = shared[1] if self.simultaneous else shared[1].detach()
        return {"loss_disc_image": self.critic(fake).mean() - self.critic(shared[0]).mean()}

    def _gen(self, shared):
        return {"loss_adv_image": -self.critic(shared[1]).mean()}


def car_game(order):
    options = f"MODEL.DEVICE cpu SOLVER.ORDER {order} MODEL.LOGAN.ENABLED True MODEL.GAN.REG.R1_GAMMA 1.0"
    generator = nn.Sequential(nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8)), nn.Tanh())
    judge = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(128, 1), nn.Flatten(0))
    return NoNormGame(load_config("", options.split()), Networks(generator, judge, None))


def image_game_step(build_game, items, accumulate):
    def make(grad_scaler=None):
        torch.manual_seed(0)
        game = build_game()
        data = itertools.cycle([list(items[:4]), list(items[4:8])])
        return ImageStep(game, list(game.phases()), data, accumulate=accumulate, grad_scaler=grad_scaler)

    return make


VECTORS = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
GAMES = {
    "vectors in turn": (partial(Vectors, False), VECTORS, 1),
    "vectors in turn, accumulated": (partial(Vectors, False), VECTORS, 2),
    "vectors at once": (partial(Vectors, True), VECTORS, 1),
    "cars in turn": (partial(car_game, "alternating"), CROPS, 1),
    "cars at once": (partial(car_game, "simultaneous"), CROPS, 2),
}


@pytest.fixture
def make_step(request, tiny_cfg, make_inputs):
    """-> a function of the scaler that builds the step of the named kind."""
    if request.param in GAMES:
        return image_game_step(*GAMES[request.param])
    changes, arguments, objects = KINDS[request.param]
    return mask_rcnn_step(small(tiny_cfg, *changes, SMALLER), make_inputs(2, objects, side=64), **arguments)


every_kind = pytest.mark.parametrize("make_step", [*KINDS, *GAMES], indirect=True)


def take(step, count=STEPS, first=0):
    """Run some iterations; the histories of all recorded norms."""
    torch.manual_seed(1 + first)
    with EventStorage(first) as storage:
        for step.iter in range(first, first + count):
            step.run_step()
            storage.step()
        return {name: history.values() for name, history in storage.histories().items() if "grad_norm" in name}


def held(step):
    """All that the step has changed, but for the scaler."""
    state = step.state_dict()
    del state["grad_scaler"]
    return {"model": {name: tensor.clone() for name, tensor in step.model.state_dict().items()}, "step": state}


@every_kind
def test_a_scale_changes_nothing_and_grows_once_an_iteration(make_step, monkeypatch):
    for module in (steps, image_game):
        monkeypatch.setattr(module, "GRADIENT_NORM_PERIOD", 1)
    plain, scaled = make_step(), make_step(scaler())
    norms = take(plain)
    assert norms["grad_norm/generator"]
    assert_same(norms, take(scaled))
    assert_same(held(plain), held(scaled))
    assert scaled.grad_scaler.get_scale() == 2 * SCALE
    assert scaled.grad_scaler.state_dict()["_growth_tracker"] == 0


def groups(step):
    """The parameters of each player, by name."""
    if isinstance(step, ImageStep):
        return {phase.name: phase.parameters() for phase in step._phases if phase.name != "lazy"}
    players = zip(("mask", "box"), discriminators_of(step.model), strict=False)
    return {"generator": generator_parameters(step.model), **dict(players)}


def spoil(parameters):
    """An overflow in one entry of one gradient in every backward pass from now on."""
    weight = max(parameters, key=torch.numel)

    def overflow(gradient):
        gradient = gradient.clone()
        gradient.view(-1)[0] = float("inf")
        return gradient

    return weight.register_hook(overflow)


LIVELY = ["joint", "thesis", "thesis, several steps", "paper", "paper, several steps"]


@pytest.mark.parametrize("make_step", [*LIVELY, *GAMES], indirect=True)
def test_an_overflow_lets_its_player_rest_and_no_other(make_step):
    undisturbed = make_step(scaler())
    take(undisturbed, 1)
    for player in groups(undisturbed):
        step = make_step(scaler())
        before = {name: [p.detach().clone() for p in part] for name, part in groups(step).items()}
        hook = spoil(groups(step)[player])
        take(step, 1)
        assert step.grad_scaler.get_scale() == SCALE / 2, player
        hook.remove()
        for name, part in groups(step).items():
            same = [torch.equal(a, b) for a, b in zip(part, before[name], strict=True)]
            assert all(same) if name == player else not all(same), (player, name)
            if name != player and not answers(step, name, player):
                assert_same([*part], [*groups(undisturbed)[name]])
        # no momentum, and Adam has not counted a step
        for optimizer in optimizers(step):
            assert not any(id(p) in {id(q) for q in groups(step)[player]} for p in optimizer.state)
        take(step, 1, first=1)
        moved = [not torch.equal(a, b) for a, b in zip(groups(step)[player], before[player], strict=True)]
        assert any(moved), player


def answers(step, name, player):
    """Whether `name` plays against what `player` has become in the same iteration."""
    in_turn = not step.model.simultaneous if isinstance(step, ImageStep) else getattr(step, "order", "") == "thesis"
    return in_turn and name == "generator" and player != "generator"


def optimizers(step):
    if isinstance(step, ImageStep):
        return [phase.optimizer for phase in step._phases]
    return [step.optimizer, *([step.disc_optimizer] if isinstance(step, AlternatingStep) else [])]


@pytest.mark.parametrize("make_step", ["thesis", "joint", "vectors in turn"], indirect=True)
def test_gradients_that_fit_no_scale_end_the_run(make_step):
    step = make_step(scaler(init_scale=2.0**-10))
    spoil(groups(step)["generator"])
    with pytest.raises(NonFiniteLossError, match="iteration 1: the gradients of the generator are not finite"):
        take(step)


@pytest.mark.parametrize("make_step", ["thesis", "vectors in turn"], indirect=True)
def test_the_scale_is_resumed(make_step):
    unbroken = make_step(scaler(growth_interval=STEPS + 1))
    take(unbroken)
    resumed = make_step(scaler(init_scale=2.0, growth_interval=9))
    resumed.load_state_dict(unbroken.state_dict())
    assert resumed.grad_scaler.state_dict() == unbroken.grad_scaler.state_dict()
    for step in (unbroken, resumed):
        take(step, 1, first=STEPS)
    assert_same(unbroken.grad_scaler.state_dict(), resumed.grad_scaler.state_dict())
    assert resumed.grad_scaler.get_scale() == 2 * SCALE


@pytest.mark.parametrize(
    "changes", [[BOTH_PLAYERS, REGULARISED], [POINT_REND], [FEATURES, BOTH_PLAYERS, ABSOLUTE], [AGNOSTIC]]
)
def test_losses_start_their_gradients_in_single_precision(tiny_cfg, make_inputs, changes):
    """A scale of 65536 is infinite in float16."""
    model = build(small(tiny_cfg, *changes))
    with EventStorage(0), torch.autocast("cpu", torch.bfloat16):
        losses, pairs = model.generator_forward(make_inputs(1, side=64))
        ours = model.adversarial_losses(pairs) | model.discriminator_losses(pairs)
        names = [name for name, _ in OBJECTIVE_REGISTRY if OBJECTIVE_REGISTRY.get(name).judges == "logits"]
        adversary = model.adversaries["mask"]
        for name in names if adversary.objective.judges == "logits" else ():
            adversary.duel = Duel(OBJECTIVE_REGISTRY.get(name)())
            ours |= {f"{name} {key}": loss for key, loss in adversary.generator_losses(pairs["mask"]).items()}
            ours |= {f"{name} {key}": loss for key, loss in adversary.discriminator_losses(pairs["mask"]).items()}
    assert {loss.dtype for loss in ours.values()} == {torch.float32}
