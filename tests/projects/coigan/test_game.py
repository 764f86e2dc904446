"""The game: who learns when, and what each loss is made of."""

import pytest
import torch
from coigan.batch import Batch, cut_defects
from coigan.config import load_config
from coigan.engine.game import DISCRIMINATOR, GENERATOR, Turns, build_game
from coigan.losses import smooth_masked_l1
from detectron2.utils.events import EventStorage
from torch import nn

from gan_plugin.engine.image_game import only_learning
from gan_plugin.errors import UserError

CLASSES, SIZE = 2, 16
SMALL = [
    *("DEVICE", "cpu", "INPUT.SIZE", str(SIZE), "MODEL.GENERATOR.WIDTH", "4", "MODEL.GENERATOR.DOWNS", "2"),
    *("MODEL.GENERATOR.BLOCKS", "1", "MODEL.GENERATOR.STYLE_SIZE", "8", "MODEL.GENERATOR.MAPPING_LAYERS", "1"),
    *("MODEL.DISCRIMINATOR.WIDTH", "4", "MODEL.REF_DISCRIMINATOR.WIDTH", "4"),
]
MASKED_PATCHES = [
    *("MODEL.REF_DISCRIMINATOR.NAME", "PatchDiscriminator", "MODEL.REF_DISCRIMINATOR.PATCH_LAYERS", "2"),
    *("LOSS.MASKED_PATCHES", "True"),
]


def make_batch(count=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    base = torch.rand(count, 3, SIZE, SIZE, generator=draw)
    masks = (torch.rand(count, CLASSES, SIZE, SIZE, generator=draw) > 0.8).float()
    masks[0] = 0  # a sample without any defect
    defects = torch.rand(count, 3 * CLASSES, SIZE, SIZE, generator=draw) * masks.repeat_interleave(3, dim=1)
    return Batch(base, torch.cat([base, masks * 0.5], dim=1), masks, defects, torch.rand(count, 3, SIZE, SIZE))


def make_game(*options):
    torch.manual_seed(0)
    return build_game(load_config("", [*SMALL, *options]), CLASSES)


def play(game, iteration, batch=None):
    """name of the phase -> its losses, of all that are due."""
    turn = game.begin(batch or make_batch(), iteration, True)
    results = {}
    with EventStorage(iteration) as storage:
        for phase in game.phases():
            if phase.is_due(iteration):
                with only_learning(game, phase.networks):
                    results[phase.name] = (phase, phase.losses(turn))
        return results, storage.latest()


def test_turns_of_both_players_make_up_all_iterations():
    turns = Turns(disc=2, gen=3)
    whose = ["D" if turns.turn(DISCRIMINATOR, i) is not None else "G" for i in range(10)]
    assert "".join(whose) == "DDGGGDDGGG"
    assert [turns.turn(DISCRIMINATOR, i) for i in (0, 1, 5, 6)] == [0, 1, 2, 3]
    assert [turns.turn(GENERATOR, i) for i in (2, 3, 4, 7)] == [0, 1, 2, 3]
    assert [i for i in range(20) if Turns().is_due(DISCRIMINATOR, i, 4)] == [0, 8, 16]
    assert [i for i in range(20) if Turns().is_due(GENERATOR, i, 4)] == [1, 9, 17]


def test_phases_follow_the_source():
    """D turns at even iterations, R1 every 16th of them, path length every 4th of the generator's; the ref D's."""
    game = make_game("SOLVER.REF_DISC_STEPS_DELAY", "2")
    due = {phase.name: [i for i in range(130) if phase.is_due(i)] for phase in game.phases()}
    assert due["discriminator"] == list(range(0, 130, 2)) and due["generator"] == list(range(1, 130, 2))
    assert due["ref_discriminator"] == list(range(0, 130, 4))
    assert due["discriminator_r1"] == [0, 32, 64, 96, 128] and due["ref_discriminator_r1"] == [0, 64, 128]
    assert due["path_length"] == list(range(1, 130, 8))
    gains = {phase.name: phase.gain for phase in game.phases()}
    assert gains["discriminator_r1"] == gains["ref_discriminator_r1"] == 16 and gains["path_length"] == 4
    optimizer = game.phases()[0].optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (0.002, (0.0, 0.998))
    assert optimizer.defaults["weight_decay"] == 0.01


def test_losses_of_a_turn_are_weighted_as_the_config_says():
    game = make_game()
    results, latest = play(game, 0)
    assert set(results) == {"discriminator", "ref_discriminator", "discriminator_r1", "ref_discriminator_r1"}
    for key in ("gan/image/d_real", "gan/image/d_fake", "gan/reference/d_real", "gan/image/diversity"):
        assert key in latest
    # verdicts of a fresh network on the same batch, by hand
    batch = make_batch()
    with torch.no_grad():
        fresh = make_game()
        images = fresh.generator(batch.inputs)
        real, fake = fresh.discriminator(batch.defects), fresh.discriminator(cut_defects(images, batch.masks))
        expected = 5 * ((1 + (-real).exp()).log().mean() + (1 + fake.exp()).log().mean())
    torch.testing.assert_close(results["discriminator"][1]["loss_disc_defect"], expected, rtol=1e-3, atol=1e-4)
    point = batch.defects.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(fresh.discriminator(point).sum(), point)
    expected = 3 * slope.flatten(1).square().sum(1).mean()
    torch.testing.assert_close(results["discriminator_r1"][1]["loss_disc_r1"], expected, rtol=1e-3, atol=1e-4)


def test_the_generators_turn():
    game = make_game()
    results, latest = play(game, 1)
    losses = results["generator"][1]
    assert set(losses) == {"loss_adv_defect", "loss_adv_ref", "loss_l1_smooth", "loss_perceptual_smooth"}
    batch, fresh = make_batch(), make_game()
    images = fresh.generator(batch.inputs)
    expected = 5 * smooth_masked_l1(images, batch.base, batch.masks, 31, 0.1, 1.0)
    torch.testing.assert_close(losses["loss_l1_smooth"], expected)
    assert "loss_path_length" in results["path_length"][1] and latest["gan/path_length"][0] > 0
    assert game.path_length.average > 0


def test_every_loss_moves_its_own_player_only():
    game = make_game()
    for iteration in (0, 1):
        for name, (phase, losses) in play(game, iteration)[0].items():
            game.zero_grad()
            sum(losses.values()).backward()
            learning = {id(p) for p in phase.parameters()}
            moved = {key for key, p in game.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
            assert moved and all(id(dict(game.named_parameters())[key]) in learning for key in moved), name


@pytest.mark.parametrize(
    "options, wanted",
    [
        (["LOSS.L1.WEIGHT", "2.0", "LOSS.L1_SMOOTH.WEIGHT", "0.0"], "loss_l1"),
        (["LOSS.MSE.WEIGHT", "2.0", "LOSS.REDUCTION", "sum"], "loss_mse"),
        (["LOSS.PERCEPTUAL.WEIGHT", "0.03", "LOSS.PERCEPTUAL_SMOOTH.WEIGHT", "0.0"], "loss_perceptual"),
        (["LOSS.FEATURE_MATCHING.WEIGHT", "1.0"], "loss_feature_matching"),
        (["LOSS.DISC_PERCEPTUAL.WEIGHT", "1.0"], "loss_judge_features"),
        (["LOSS.OBJECTIVE", "RelativisticAverage"], "loss_adv_defect"),
        (["LOSS.OBJECTIVE", "Hinge", "LOSS.DIFFAUG", "translation,cutout"], "loss_adv_ref"),
        (["LOSS.ADA.TARGET", "0.6", "LOSS.ADA.IMAGES", "10", "LOSS.DIFFAUG", "flip"], "loss_adv_ref"),
        (["MODEL.GENERATOR.NAME", "StyleFFCUNet"], "loss_adv_defect"),
        ([*MASKED_PATCHES, "LOSS.DIFFAUG", "cutout"], "loss_adv_ref"),
    ],
)
def test_options_train(options, wanted):
    game = make_game(*options)
    for iteration in (0, 1):
        results, _ = play(game, iteration)
        for _, losses in results.values():
            total = sum(losses.values())
            assert torch.isfinite(total)
            total.backward()
    assert wanted in results["generator"][1]


def test_each_discriminator_has_its_own_probability_of_augmentation():
    game = make_game("LOSS.ADA.TARGET", "0.6", "LOSS.ADA.IMAGES", "20", "LOSS.DIFFAUG", "flip")
    # a judge that is sure of real defects, and one that takes all that is real for painted
    game.discriminator.verdict[-1].bias.data.fill_(100.0)
    game.ref_discriminator.verdict[-1].bias.data.fill_(-100.0)
    _, noted = play(game, 0)
    assert noted["gan/image/augment_p"][0] == pytest.approx(5 / 20) and noted["gan/reference/augment_p"][0] == 0
    assert game.state_dict()["adaptive.image.probability"].item() == pytest.approx(5 / 20)


class Summed(nn.Module):
    """A judge whose verdict is the sum of all pixels, so that its gradient is 1 at each."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.weight * images.flatten(1).sum(1)


def test_r1_is_of_the_augmented_images():
    """What a hole hides has no slope; the rest has 1 a pixel."""
    game, batch = make_game("LOSS.ADA.TARGET", "0.6", "LOSS.DIFFAUG", "cutout"), make_batch()
    game.discriminator, game.ref_discriminator = Summed(), Summed()
    phases, turn = {phase.name: phase for phase in game.phases()}, game.begin(batch, 0, True)
    judged = {"discriminator_r1": ("image", batch.defects), "ref_discriminator_r1": ("reference", batch.reference)}
    for name, (player, real) in judged.items():
        whole = 3 * real[0].numel()
        assert sum(phases[name].losses(turn).values()).item() == pytest.approx(whole)
        game.adaptive[player].probability.fill_(1)
        torch.manual_seed(3)
        (penalty,) = phases[name].losses(turn).values()
        torch.manual_seed(3)
        visible = game.adaptive[player](torch.ones_like(real)).flatten(1).sum(1)
        assert penalty.item() == pytest.approx(3 * visible.mean().item()) and penalty < 0.9 * whole


def test_weight_schedules_are_wired():
    game = make_game("LOSS.L1_SMOOTH.SCHEDULE", "(0.0, 10)", "LOSS.ADVERSARIAL.WEIGHT", "0.0")
    early, late = (play(game, iteration)[0]["generator"][1] for iteration in (1, 9))
    assert late["loss_l1_smooth"].item() == pytest.approx(early["loss_l1_smooth"].item() / 9, rel=0.3)
    assert "loss_l1_smooth" not in play(game, 11)[0]["generator"][1] and "loss_adv_defect" not in early


def test_without_a_reference_discriminator():
    game = make_game("MODEL.REF_DISCRIMINATOR.ENABLED", "False")
    assert game.ref_discriminator is None
    assert [phase.name for phase in game.phases()] == ["discriminator", "discriminator_r1", "generator", "path_length"]
    with pytest.raises(UserError, match="needs MODEL.REF_DISCRIMINATOR"):
        make_game("MODEL.REF_DISCRIMINATOR.ENABLED", "False", "LOSS.FEATURE_MATCHING.WEIGHT", "1.0")


@pytest.mark.parametrize(
    "options, said",
    [
        (["LOSS.OBJECTIVE", "Softplus"], "LOSS.OBJECTIVE is 'Softplus'"),
        (["LOSS.OBJECTIVE", "MultiLayerL1"], "needs features"),
        (["LOSS.L1.WEIGHT", "-1.0"], "LOSS.L1.WEIGHT is -1.0"),
        (["LOSS.L1.SCHEDULE", "(1.0, -5)"], r"LOSS.L1.SCHEDULE is \(1.0, -5\)"),
        (["LOSS.R1.EVERY", "0"], "LOSS.R1.EVERY is 0"),
        (["LOSS.ADA.TARGET", "0.6"], "ADA needs augmentations; name some with DIFFAUG"),
        (["SOLVER.BATCH", "3"], "SOLVER.BATCH"),
        (["MODEL.GENERATOR.NORM", "LN"], "MODEL.GENERATOR.NORM is 'LN'"),
        (["LOSS.MASKED_PATCHES", "True"], "PatchDiscriminator"),
        ([*MASKED_PATCHES, "LOSS.DIFFAUG", "cutout, flip"], "images that stay where their masks are"),
        (["LOSS.DIFFAUG", "flip,colour"], "LOSS.DIFFAUG is 'flip,colour'; set it to some of"),
    ],
)
def test_wrong_configs_are_refused_in_a_sentence(options, said):
    with pytest.raises(UserError, match=said):
        make_game(*options)


def test_the_picture_shows_what_both_players_see():
    game, batch = make_game("SOLVER.SAMPLE_DETAILS", "True").eval(), make_batch(1, seed=3)
    batch.masks[0, 0, 0, 0] = 1  # the only pixel that is asked for
    batch.inputs[0, 3:] = 0.5 * batch.masks[0]
    batch.defects[0, :3, 0, 0] = torch.tensor([0.2, 0.4, 0.6])
    game._preview = batch
    with torch.no_grad():
        columns = game.picture().split(SIZE + 2, dim=2)
        painted = game.paint(batch)
    assert len(columns) == 6
    noisy, fake, real = (column[:, :, :SIZE] for column in columns[3:])
    torch.testing.assert_close(fake[:, 0, 0], painted[0, :, 0, 0])
    torch.testing.assert_close(real[:, 0, 0], torch.tensor([0.2, 0.4, 0.6]))
    # half of the first class's colour, 0, 114, 178
    torch.testing.assert_close(noisy[:, 0, 0], torch.tensor([0, 114, 178]) / 255 / 2)
    assert not noisy[:, :, 1:].any() and not fake[:, :, 1:].any() and not real[:, :, 1:].any()
