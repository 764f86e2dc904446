"""Latent optimisation, orthogonal regularisation and the losses of the game, by formula."""

import pytest
import torch
from car_gan.config import load_config
from car_gan.game import LatentOptimizer, Latents, build_game, latent_step, orthogonal_loss, orthogonal_penalty
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_plugin import UserError
from gan_plugin.engine.image_game import ImageStep, only_learning
from gan_plugin.modeling.objectives import Hinge

SMALL = ["INPUT.SIZE", 16, "MODEL.GENERATOR.WIDTH", 4, "MODEL.DISCRIMINATOR.WIDTH", 4, "MODEL.LATENT.SIZE", 6]


def game_of(*opts):
    torch.manual_seed(0)
    return build_game(load_config("", ["MODEL.DEVICE", "cpu", *map(str, [*SMALL, *opts])]))


def test_latent_step_has_the_length_of_equation_2_for_each_sample():
    g = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.1, 1, 3, 10, 0])[:, None]
    g.requires_grad_(True)
    step = latent_step(g, alpha=0.9, beta=5.0)
    norms = g.norm(dim=1)
    torch.testing.assert_close(step.norm(dim=1), 0.9 * norms / (5 + norms**2))
    assert torch.equal(step[4], torch.zeros(7))
    # the derivative of alpha g / (beta + g^2) along g is alpha (beta - g^2) / (beta + g^2)^2
    one = torch.tensor([[2.0]], requires_grad=True)
    latent_step(one, 0.9, 5.0).sum().backward()
    assert one.grad.item() == pytest.approx(0.9 * (5 - 4) / (5 + 4) ** 2)


def test_the_step_climbs_moves_a_share_stays_in_bounds_and_passes_gradients_on():
    weight = torch.tensor([[1.0, -2.0, 3.0, 4.0]], requires_grad=True)

    def judge(z):
        return (z @ weight.t()).squeeze(1)

    z = torch.tensor([[0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    moved, step = LatentOptimizer(alpha=0.9, beta=5.0)(judge, z)
    torch.testing.assert_close(step, (0.9 / (5 + 30) * weight).expand(2, 4))
    assert (judge(moved) > judge(z)).all()
    (gradient,) = torch.autograd.grad(moved.sum(), weight)
    # d/dw of alpha w / (beta + |w|^2), summed over entries and both samples
    w = weight.detach()
    expected = 2 * 0.9 * (1 / 35 - 2 * w * w.sum() / 35**2)
    torch.testing.assert_close(gradient, expected)
    moved, step = LatentOptimizer(alpha=90.0, beta=5.0, clip=1.0, share=0.5)(judge, z)
    assert float(moved.abs().max()) == 1.0 and not step[:, 2:].any() and step[:, :2].all()


def test_second_order_gradients_reach_both_players_under_mixed_precision():
    game = game_of("MODEL.LOGAN.ENABLED", True)
    with EventStorage(), torch.autocast("cpu", torch.bfloat16):
        shared = game.begin((torch.rand(4, 3, 16, 16), None), 0, True)
        fake, step = game.generate(shared)
    assert shared.made is None and step.dtype == torch.float32 and step.requires_grad
    step.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in game.generator.parameters())
    # a bias only moves the kinks of leaky ReLU, so the second derivative does not know it
    weights = [p for p in game.discriminator.parameters() if p.ndim > 1]
    assert all(p.grad is not None and p.grad.any() for p in weights)


@pytest.mark.parametrize("player", [0, 1])
def test_a_step_spends_no_backward_pass_on_the_latents(player):
    game = game_of("MODEL.LOGAN.ENABLED", True)
    phase = game.phases()[player]
    step = ImageStep(game, [phase], [], accumulate=1, amp=False)
    step.iter = 0
    latents = []
    game.generator.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    shared = game.begin((torch.rand(4, 3, 16, 16), None), 0, True)
    with EventStorage():
        with only_learning(game, phase.networks):
            sum(phase.losses(shared).values()).backward()
        expected = [parameter.grad for parameter in phase.parameters()]
        assert any(z.is_leaf and z.grad is not None for z in latents)
        latents.clear()
        step._play([phase], [shared])
    torch.testing.assert_close([parameter.grad for parameter in phase.parameters()], expected)
    assert not any(z.is_leaf and z.grad is not None for z in latents)


def test_orthogonal_penalty_is_zero_for_an_orthogonal_matrix_and_right_by_hand():
    q = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
    assert float(orthogonal_penalty(q, "full")) == pytest.approx(0, abs=1e-9)
    assert float(orthogonal_penalty(3 * q, "off_diagonal")) == pytest.approx(0, abs=1e-7)
    # filters (1, 2) and (3, 4): Gram matrix [[5, 11], [11, 25]]
    w = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert float(orthogonal_penalty(w, "off_diagonal")) == 2 * 11**2
    assert float(orthogonal_penalty(w, "full")) == 4**2 + 2 * 11**2 + 24**2


def test_filters_of_a_transposed_and_of_a_normalised_layer_are_found():
    transposed = nn.ConvTranspose2d(2, 3, 1, bias=False)
    transposed.weight.data = torch.tensor([[1.0, 0, 0], [0, 2.0, 2.0]]).view(2, 3, 1, 1)
    # filters (1, 0), (0, 2), (0, 2): one pair has the product 4
    assert float(orthogonal_loss(transposed, "off_diagonal")) == 2 * 4**2
    layer = nn.Linear(4, 2, bias=False)
    plain = float(orthogonal_loss(layer, "full"))
    weight = layer.weight.detach().clone()
    assert float(orthogonal_loss(spectral_norm(layer), "full")) == pytest.approx(plain)
    assert plain == pytest.approx(float(orthogonal_penalty(weight, "full")))


def test_hinge_on_known_scores():
    hinge = Hinge()
    assert float(hinge.discriminator_loss(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -3.0]))) == 0
    assert float(hinge.discriminator_loss(torch.zeros(3), torch.zeros(3))) == 2
    assert float(hinge.generator_loss(torch.tensor([1.0, 3.0]))) == -2


def test_shared_and_separate_images_give_the_same_gradients():
    """What is shared between the phases saves a forward pass and changes nothing else."""
    gradients = []
    for keep in (True, False):
        game = game_of()
        with EventStorage():
            shared = game.begin((torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)), None), 0, keep)
            assert (shared.made is not None) == keep
            for phase in game.phases():
                sum(phase.losses(shared).values()).backward()
        gradients.append([p.grad for p in game.generator.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("logan", [False, True])
@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_only_in_turn_does_the_generator_meet_the_discriminator_that_has_moved(order, logan):
    weights = []
    for rate in (1e-9, 0.1):
        game = game_of("MODEL.LOGAN.ENABLED", logan, "SOLVER.ORDER", order, "SOLVER.DISC.BASE_LR", rate)
        real = list(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)))
        step = ImageStep(game, list(game.phases()), [real], accumulate=1, amp=False)
        step.iter = 0
        with EventStorage():
            step.run_step()
        weights.append(list(game.generator.parameters()))
        gradients = [p.grad for p in game.generator.parameters()]
        assert all(gradient is not None and gradient.any() for gradient in gradients if gradient.ndim > 1)
    same = all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert same == (order == "simultaneous")


def test_an_encoder_learns_jointly_with_the_generator():
    game = game_of("MODEL.ENCODER.ENABLED", True, "MODEL.LOGAN.ENABLED", True, "MODEL.LOGAN.PENALTY", 2.0)
    with EventStorage():
        shared = game.begin((torch.rand(4, 3, 16, 16), None), 0, True)
        disc, gen = (phase.losses(shared) for phase in game.phases())
    assert disc.keys() == {"loss_disc_image", "loss_disc_reconstruction"}
    assert gen.keys() == {
        "loss_adv_image",
        "loss_adv_reconstruction",
        "loss_latent_step",
        "loss_rec_image",
        "loss_rec_latent",
    }
    gen["loss_rec_image"].backward()
    assert all(p.grad is not None for p in game.encoder.parameters())
    assert {id(p) for p in game.encoder.parameters()} < {id(p) for p in game.phases()[1].parameters()}


def test_latents_are_the_same_for_a_seed_and_truncation_bounds_them():
    before = torch.get_rng_state()
    a, b = (Latents(50).fixed(20, torch.device("cpu"), 3, truncation=0.5) for _ in range(2))
    assert torch.equal(a, b) and float(a.abs().max()) <= 0.5 and torch.equal(before, torch.get_rng_state())
    uniform = Latents(50, "uniform").draw(40, torch.device("cpu"))
    assert float(uniform.abs().max()) <= 1 and float(uniform.std()) == pytest.approx(3**-0.5, abs=0.03)


def test_an_objective_of_pairs_is_refused():
    with pytest.raises(UserError, match="MultiLayerL1 compares the features of pairs"):
        game_of("MODEL.GAN.OBJECTIVE", "MultiLayerL1")
