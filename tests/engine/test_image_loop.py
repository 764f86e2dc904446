"""The loop of image GANs: exact resume, accumulation, clipping, what a phase may move, and how it ends."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage, get_event_storage
from support import assert_same
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
from torch import nn

from gan_plugin import UserError
from gan_plugin.engine.hooks import CollapseAlarm
from gan_plugin.engine.image_game import ImageGame, ImageLoop, ImageLoopOptions, Phase
from gan_plugin.engine.train_loader import ResumableTrainLoader

ITEMS = torch.randn(12, 6, generator=torch.Generator().manual_seed(3))


class TinyGame(ImageGame):
    """Vectors for images: linear players, a lazy regulariser that shares the discriminator's optimizer."""

    def __init__(self, clip_norm=0.0):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6))
        self.critic = nn.Linear(6, 1)
        self.clip_norm = clip_norm
        self.latents = None

    def phases(self):
        disc = torch.optim.Adam(self.critic.parameters(), 0.01)
        gen = torch.optim.SGD(self.generator.parameters(), 0.1)
        return [
            Phase("discriminator", [self.critic], disc, self._disc),
            Phase("lazy", [self.critic], disc, self._lazy, every=3, gain=3.0),
            Phase("generator", [self.generator], gen, self._gen, clip_norm=self.clip_norm),
        ]

    def collate(self, items):
        return torch.stack(items)

    def begin(self, batch, iteration, keep_graph):
        latents = torch.randn(len(batch), 2) if self.latents is None else self.latents[: len(batch)]
        return batch, self.generator(latents)

    def _disc(self, shared):
        real, fake = shared
        get_event_storage().put_scalar("gan/image/d_real", self.critic(real).mean().item())
        return {"loss_disc_image": (self.critic(fake.detach()) - self.critic(real)).mean()}

    def _lazy(self, shared):
        return {"loss_disc_lazy": self.critic.weight.square().sum()}

    def _gen(self, shared):
        return {"loss_adv_image": -self.critic(shared[1]).mean()}

    def picture(self):
        return torch.rand(3, 4, 4)


def loader(batch=4):
    def noisy(index):
        return ITEMS[index] + 0.1 * torch.randn(6)

    return ResumableTrainLoader(
        list(range(len(ITEMS))), noisy, seed=7, total_batch_size=batch, aspect_ratio_grouping=False
    )


def options(folder, **changes):
    return replace(ImageLoopOptions(str(folder), 8, ema_decay=0.9, checkpoint_period=2, sample_period=3), **changes)


def decaying(phase):
    return torch.optim.lr_scheduler.ExponentialLR(phase.optimizer, 0.9) if phase.name == "generator" else None


def run(folder, *, resume=False, game=None, evaluate=None, **changes):
    Path(folder).mkdir(exist_ok=True)
    torch.manual_seed(0)
    game = game or TinyGame()
    loop = ImageLoop(game, loader(), options(folder, **changes), evaluate=evaluate, schedule=decaying)
    loop.resume_or_load(resume=resume)
    loop.train()
    return loop


def saved(folder, name="model_final.pth"):
    return torch.load(Path(folder) / name, weights_only=True)


def test_players_that_move_together_share_no_optimizer(tmp_path):
    game = TinyGame()
    game.simultaneous = True
    with pytest.raises(ValueError, match="share an optimizer"):
        run(tmp_path, game=game)


@pytest.mark.parametrize("changes", [{}, {"amp": True, "accumulate": 2}])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path, changes):
    scores = iter([5.0, 3.0, 4.0, 9.0] * 4)

    def evaluate(game, folder):
        torch.rand(3)
        return {"toy": {"FID": next(scores)}}

    best = {"best": {"toy/FID": "fid"}, "eval_period": 2, "keep": 2, **changes}
    run(tmp_path / "a", evaluate=evaluate, **best)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in ("model_final.pth", "model_0000007.pth", "model_final_ema.pth"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "b" / "last_checkpoint").write_text("model_0000005.pth")
    torch.manual_seed(99)
    loop = run(tmp_path / "b", resume=True, **best)
    assert loop.start_iter == 6
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b")
    assert_same(a, b)
    assert a["trainer"]["_trainer"]["optimizers"].keys() == {"discriminator", "lazy", "generator"}
    assert_same(saved(tmp_path / "a", "model_final_ema.pth"), saved(tmp_path / "b", "model_final_ema.pth"))
    assert sorted(p.name for p in (tmp_path / "b").glob("model_0*.pth")) == ["model_0000005.pth", "model_0000007.pth"]


def test_the_best_of_each_score_is_kept_and_the_average_loads_into_a_bare_generator(tmp_path):
    values = iter([(5.0, 1.2), (0.0, 0.0), (3.0, 1.1), (0.0, 0.0), (4.0, 1.4), (0.0, 0.0)])

    def evaluate(game, folder):
        fid, score = next(values)
        return {"toy": {"FID": fid, "IS": score}}

    run(tmp_path, evaluate=evaluate, max_iter=6, eval_period=2, best={"-toy/FID": "fid", "toy/IS": "is"})
    assert json.loads((tmp_path / "model_best_fid.json").read_text())["iteration"] == 3
    assert json.loads((tmp_path / "model_best_is.json").read_text()) == {
        "metric": "toy/IS",
        "value": 1.4,
        "iteration": 6,
    }
    assert_same(saved(tmp_path, "model_best_fid.pth")["model"], saved(tmp_path, "model_0000003.pth")["model"])
    TinyGame().generator.load_state_dict(saved(tmp_path, "model_final_ema.pth")["model"])
    assert len(list((tmp_path / "samples").glob("iter_*.png"))) == 3
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_two_small_batches_give_the_gradient_of_a_large_one(tmp_path):
    """The generator's loss is linear in its outputs; without batch statistics the mean of means is the mean."""
    weights = []
    for size, accumulate in ((8, 1), (4, 2)):
        torch.manual_seed(0)
        game = TinyGame()
        game.generator[1] = nn.Identity()
        game.latents = torch.ones(8, 2)
        data = ResumableTrainLoader(list(ITEMS), lambda x: x, seed=1, total_batch_size=size)
        data._grouping = False
        folder = tmp_path / str(accumulate)
        folder.mkdir()
        ImageLoop(game, data, options(folder, max_iter=3, accumulate=accumulate)).train()
        weights.append(torch.cat([p.detach().flatten() for p in game.parameters()]))
    torch.testing.assert_close(*weights)


def test_a_phase_moves_its_own_networks_only_and_clips_their_norm(tmp_path):
    game = TinyGame(clip_norm=1e-3)
    game.latents = torch.randn(4, 2)
    before = [p.detach().clone() for p in game.generator.parameters()]
    loop = ImageLoop(game, loader(), options(tmp_path))
    step = loop._trainer
    step._phases = step._phases[2:]
    critic = game.critic.weight.detach().clone()
    with EventStorage():
        step.iter = 0
        step.run_step()
    assert torch.equal(game.critic.weight, critic) and game.critic.weight.grad is None
    moved = torch.cat([(a - b).flatten() for a, b in zip(game.generator.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert all(p.requires_grad for p in game.parameters())


def test_nan_names_the_loss_and_the_iteration(tmp_path):
    class Broken(TinyGame):
        def _gen(self, shared):
            scale = float("nan") if get_event_storage().iter == 3 else 1.0
            return {"loss_adv_image": scale * self.critic(shared[1]).mean()}

    with pytest.raises(UserError, match="iteration 3: loss_adv_image is nan"):
        run(tmp_path, game=Broken())
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_the_alarm_sounds_once_for_each_way_to_collapse(caplog):
    class Trainer:
        iter = 0

    alarm, trainer = CollapseAlarm(patience=20), Trainer()
    alarm.trainer = trainer
    with EventStorage() as storage:
        trainer.storage = storage
        for number in range(60):
            trainer.iter = storage.iter = number
            storage.put_scalars(**{"gan/image/diversity": 0.01, "loss_disc_total": 0.7})
            alarm.after_step()
        assert caplog.text.count("collapsed") == 1 and "has won" not in caplog.text
        assert storage.latest()["gan/alarms"][0] == 1


def test_histograms_of_weights_and_gradients_are_written_and_change_nothing(tmp_path):
    run(tmp_path / "plain")
    loop = run(tmp_path / "watched", histogram_period=4)
    assert_same(saved(tmp_path / "plain")["model"], saved(tmp_path / "watched")["model"])
    names = {"critic.weight", "generator.0.weight"}  # neither biases nor statistics
    found = {}
    for path in (tmp_path / "watched").glob("events.out.tfevents*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(("weights/", "gradients/")):
                    found.setdefault(value.tag, []).append((event.step, value))
    assert set(found) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    assert [step for step, _ in found["weights/critic.weight"]] == [3, 7]
    counted = tensor_util.make_ndarray(found["weights/critic.weight"][-1][1].tensor)  # low, high, count of each bin
    weights = loop.game.critic.weight.detach()
    assert counted[:, 2].sum() == weights.numel()
    held = counted[counted[:, 2] > 0]
    assert held[0, 0] <= weights.min() + 1e-3 and held[-1, 1] >= weights.max() - 1e-3
