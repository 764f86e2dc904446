"""The one game behind all presets: each ingredient of the source document is a switch of the config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized
from torchvision.utils import make_grid

from car_gan.networks.build import Networks, build_networks
from car_gan.pictures import GREEN, Colour
from gan_plugin.compat import fused_adam
from gan_plugin.engine.image_game import ImageGame, Losses, Phase
from gan_plugin.errors import UserError
from gan_plugin.layers.double_backward import input_gradient
from gan_plugin.modeling.duel import Duel, record_statistics
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.presenters import DiscriminatorAugment
from gan_plugin.modeling.stability import LabelNoise, Regularizer, mean_over_processes

_GRID = 64


@dataclass(frozen=True)
class Latents:
    """The distribution of z.

    Attributes:
        size: its length.
        distribution: "normal", N(0, 1), or "uniform" in [-1, 1].
        shares: of the labels, for a conditional generator; z is then followed by the label as a one-hot vector, which
            makes the first layer's weights for it an embedding.
    """

    size: int
    distribution: str = "normal"
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, cfg: CfgNode) -> "Latents":
        """Those of a config."""
        return cls(cfg.MODEL.LATENT.SIZE, cfg.MODEL.LATENT.DISTRIBUTION, tuple(cfg.MODEL.LABEL.SHARES))

    def draw(
        self, count: int, device: torch.device, truncation: float = 0.0, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(count, size + number of labels) from torch's global random state.

        Args:
            count: of latents.
            device: where they are wanted.
            truncation: entries of a greater absolute value are drawn again, or for "uniform" the bound itself; 0 for
                none. BigGAN's trade of variety for quality (Brock et al. 2018, arXiv 1809.11096, section 3.1).
            labels: (count,) numbers of labels; None draws them by their shares.
        """
        z = self._noise(count, device, truncation)
        if not self.shares:
            return z
        if labels is None:
            labels = torch.multinomial(torch.tensor(self.shares), count, replacement=True)
        return torch.cat([z, functional.one_hot(labels.to(device), len(self.shares)).to(z.dtype)], dim=1)

    def _noise(self, count: int, device: torch.device, truncation: float) -> torch.Tensor:
        if self.distribution == "uniform":
            return (torch.rand(count, self.size, device=device) * 2 - 1) * (truncation or 1.0)
        z = torch.randn(count, self.size, device=device)
        while truncation and bool((outside := z.abs() > truncation).any()):
            z = torch.where(outside, torch.randn_like(z), z)
        return z

    def fixed(
        self, count: int, device: torch.device, seed: int, truncation: float = 0.0, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same latents for the same seed, on any device; the global random state stays. Arguments as of `draw`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.draw(count, torch.device("cpu"), truncation, labels).to(device)


def latent_step(gradient: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """dz = alpha / (beta + |g|^2) g for each sample (source document, equation 2).

    Args:
        gradient: (N, latent_size), d f(z) / d z.
        alpha, beta: step size and damping, beta above 0.

    Returns:
        (N, latent_size), with the gradient of `gradient`.
    """
    return alpha / (beta + gradient.square().sum(dim=1, keepdim=True)) * gradient


@dataclass(frozen=True)
class LatentOptimizer:
    """Moves z towards what the discriminator takes for real.

    Attributes:
        alpha, beta: of `latent_step`.
        clip: z + dz is held in [-clip, clip]; 0 for no bound.
        share: of z's entries that move, the first ones, in (0, 1].
        still: entries at the end of z that are a label, which neither moves nor counts.
    """

    alpha: float = 0.9
    beta: float = 5.0
    clip: float = 0.0
    share: float = 1.0
    still: int = 0

    def __call__(
        self, judge: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The moved latents and dz, both (N, latent_size), in float32; dz without the label.

        Gradients pass through dz into whatever networks `judge`, z -> (N,) = D(G(z)), lets learn: a second derivative,
        so mixed precision is off here.
        """
        with torch.autocast(z.device.type, enabled=False), torch.enable_grad():
            z = z.detach().float()
            gradient = input_gradient(judge, z)
            noise, label = z.split([z.shape[1] - self.still, self.still], dim=1)
            step = latent_step(gradient[:, : noise.shape[1]], self.alpha, self.beta)
            if self.share < 1:
                moving = torch.arange(noise.shape[1], device=z.device) < round(self.share * noise.shape[1])
                step = step * moving
            moved = noise + step
            moved = moved.clamp(-self.clip, self.clip) if self.clip else moved
            return torch.cat([moved, label], dim=1), step


def orthogonal_penalty(weight: torch.Tensor, form: str) -> torch.Tensor:
    """The distance of the filters of a layer to orthogonal ones, a scalar.

    Args:
        weight: (filters, ...); each filter is a column of W.
        form: "full", |W^T W - I|^2 (Brock et al. 2016, arXiv 1609.07093), or "off_diagonal", |W^T W o (1 - I)|^2, which
            leaves the filters' norms free (BigGAN; Brock et al. 2018, arXiv 1809.11096, equation 3). Frobenius norms.
    """
    rows = weight.flatten(1)
    gram = rows @ rows.t()
    identity = torch.eye(len(gram), device=gram.device)
    return ((gram - identity) if form == "full" else gram * (1 - identity)).square().sum()


def orthogonal_loss(network: nn.Module, form: str) -> torch.Tensor:
    """The sum of `orthogonal_penalty` over all convolutions and linear layers, in single precision."""
    weights = [_filters(m) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    with torch.autocast(weights[0].device.type, enabled=False):
        return torch.stack([orthogonal_penalty(weight.float(), form) for weight in weights]).sum()


def _filters(layer: Any) -> torch.Tensor:
    # a spectrally normalised weight is the same up to a factor; a transposed convolution has its inputs first
    weight = layer.parametrizations.weight.original if is_parametrized(layer) else layer.weight
    return weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight


@dataclass
class Round:
    """What the phases of one iteration share.

    Attributes:
        real, labels: images and their labels, which the generated ones get too.
        z: latents, not yet optimised.
        iteration: its number.
        made: generated images and the step of the latents, where one graph serves all phases.
        on_fake: the verdicts on them, if the phases also see the same discriminator.
    """

    real: torch.Tensor
    labels: torch.Tensor | None
    z: torch.Tensor
    iteration: int
    made: tuple[torch.Tensor, torch.Tensor | None] | None = None
    on_fake: torch.Tensor | None = None


class CarGame(ImageGame):
    """A generator, a discriminator and perhaps an encoder, with the losses that the config switches on."""

    def __init__(self, cfg: CfgNode, networks: Networks, key: Colour = GREEN) -> None:
        """
        Args:
            cfg: of `load_config`.
            networks: the players.
            key: the colour that the crops lie on, which fills what an augmentation uncovers.

        Raises:
            UserError: an objective or an augmentation is unknown, or a regulariser's value out of range.
        """
        super().__init__()
        self.generator = networks.generator
        self.discriminator = networks.discriminator
        self.encoder = networks.encoder
        self.cfg = cfg
        model, gan = cfg.MODEL, cfg.MODEL.GAN
        self.latents = Latents.of(cfg)
        objective = build_objective(gan.OBJECTIVE, "MODEL.GAN.OBJECTIVE")
        if objective.judges != "logits":
            raise UserError(
                f"MODEL.GAN.OBJECTIVE {gan.OBJECTIVE} compares the features of pairs, which crops are not; choose an "
                "objective of verdicts, such as NonSaturatingBCE or Hinge."
            )
        labels = LabelNoise(tuple(gan.LABELS.REAL), tuple(gan.LABELS.FAKE), gan.LABELS.FLIP_PROB)
        self.duel = Duel(objective, labels)
        self.regularizer = Regularizer(gan.REG.R1_GAMMA, gan.REG.GP_WEIGHT, gan.REG.EVERY)
        ground = torch.tensor([*(value / 127.5 - 1 for value in key), -1.0][: cfg.INPUT.CHANNELS])
        self.augment = DiscriminatorAugment(gan.DIFFAUG, gan.INSTANCE_NOISE, ground.view(1, -1, 1, 1))
        logan = model.LOGAN
        optimizer = LatentOptimizer(logan.ALPHA, logan.BETA, logan.CLIP, logan.SHARE, len(self.latents.shares))
        self.latent_optimizer = optimizer if logan.ENABLED else None
        self.simultaneous = cfg.SOLVER.ORDER == "simultaneous"

    def phases(self) -> Sequence[Phase]:
        solver, disc = self.cfg.SOLVER, self.cfg.SOLVER.DISC
        clip = solver.CLIP_GRADIENTS
        limit = {f"clip_{clip.CLIP_TYPE}": clip.CLIP_VALUE} if clip.ENABLED else {}
        makers = [self.generator] if self.encoder is None else [self.generator, self.encoder]
        return [
            Phase("discriminator", [self.discriminator], _adam([self.discriminator], disc), self._disc_losses, **limit),
            Phase("generator", makers, _adam(makers, solver), self._gen_losses, every=disc.STEPS, **limit),
        ]

    def collate(self, items: list[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images (N, C, S, S), and the numbers of their labels (N,) where items are pairs of both."""
        if not self.latents.shares:
            return torch.stack(items).to(self.device, non_blocking=True), None
        images, labels = zip(*items, strict=True)
        return torch.stack(images).to(self.device, non_blocking=True), torch.tensor(labels, device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def begin(self, batch: tuple[torch.Tensor, torch.Tensor | None], iteration: int, keep_graph: bool) -> Round:
        real, labels = batch
        shared = Round(real, labels, self.draw(real, labels), iteration)
        # In turn, the generator optimises its latents against the discriminator that has just moved.
        lasting = self.simultaneous or self.latent_optimizer is None
        if keep_graph and lasting and iteration % self.cfg.SOLVER.DISC.STEPS == 0:
            shared.made = self.generate(shared)
        return shared

    def draw(self, real: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """Latents (N, latent_size) for a batch of real images and their labels."""
        return self.latents.draw(len(real), self.device, labels=labels)

    def judge(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """(N, C, S, S) in [-1, 1] and (N,) labels -> (N,) logits of the augmented images."""
        return self.verdict(self.augment(images), labels)

    def verdict(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """(N, C, S, S) in [-1, 1] and (N,) labels -> (N,) logits.

        With labels y it is the projection discriminator (Miyato and Koyama 2018, arXiv 1802.05637, equation 3):
        psi(phi(x)) + <e_y, phi(x)>, both linear in the features phi(x) before the last layer. Its first output is psi,
        and the weights of output 1 + y are e_y.
        """
        # float32: a loss in float16 could not hold the scaled gradient that it starts from
        outputs = self.discriminator(images).float()
        return outputs if labels is None else outputs[:, 0] + outputs.gather(1, 1 + labels[:, None])[:, 0]

    def generate(self, shared: Round) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The round's generated images, and dz where latents are optimised."""
        if shared.made is not None:
            return shared.made
        if self.latent_optimizer is None:
            return self.generator(shared.z), None
        moved, step = self.latent_optimizer(lambda z: self.verdict(self.generator(z), shared.labels), shared.z)
        return self.generator(moved), step

    def _judge_fake(self, shared: Round, fake: torch.Tensor) -> torch.Tensor:
        if shared.on_fake is not None:
            return shared.on_fake
        on_fake = self.judge(fake, shared.labels)
        if self.simultaneous and shared.made is not None:
            shared.on_fake = on_fake
        return on_fake

    def _disc_losses(self, shared: Round) -> Losses:
        fake, step = self.generate(shared)
        if step is None and not self.simultaneous:
            # nothing of the discriminator is behind the fakes, and nobody else asks for these verdicts
            fake = fake.detach()
        on_real, on_fake = self.judge(shared.real, shared.labels), self._judge_fake(shared, fake)
        self._record(on_real, on_fake, shared.real, fake)
        losses = {"loss_disc_image": self.duel.discriminator_loss(on_real, on_fake)}
        if self.encoder is not None:
            with torch.no_grad():
                again = self.generator(self.encoder(shared.real))
            on_again = self.judge(again, shared.labels)
            losses["loss_disc_reconstruction"] = self.duel.discriminator_loss(on_real, on_again)
        if self.regularizer.is_due(shared.iteration):
            judge = partial(self.judge, labels=shared.labels)
            losses["loss_disc_image_reg"] = self.regularizer(judge, shared.real, fake)
        return losses | self._orthogonal("loss_disc_orthogonal", self.discriminator)

    def _gen_losses(self, shared: Round) -> Losses:
        fake, step = self.generate(shared)
        on_real = self.duel.beside(partial(self.judge, labels=shared.labels), shared.real)
        losses = {"loss_adv_image": self.duel.objective.generator_loss(self._judge_fake(shared, fake), on_real)}
        if step is not None and self.cfg.MODEL.LOGAN.PENALTY:
            losses["loss_latent_step"] = self.cfg.MODEL.LOGAN.PENALTY * step.square().sum(1).mean()
        if self.encoder is not None:
            losses |= self._encoder_losses(self.encoder, shared, fake, on_real)
        return losses | self._orthogonal("loss_orthogonal", self.generator)

    def _encoder_losses(
        self, encoder: nn.Module, shared: Round, fake: torch.Tensor, on_real: torch.Tensor | None
    ) -> Losses:
        node = self.cfg.MODEL.ENCODER
        again = self.generator(encoder(shared.real))
        # the image of a moved latent would teach the encoder a latent that made none
        image = fake if self.latent_optimizer is None else self.generator(shared.z)
        return {
            "loss_adv_reconstruction": node.ADVERSARIAL_WEIGHT
            * self.duel.objective.generator_loss(self.judge(again, shared.labels), on_real),
            "loss_rec_latent": node.LATENT_WEIGHT * (encoder(image) - shared.z).square().mean(),
            "loss_rec_image": node.IMAGE_WEIGHT * (again - shared.real).abs().mean(),
        }

    def _orthogonal(self, name: str, network: nn.Module) -> Losses:
        node = self.cfg.MODEL.ORTHOGONAL
        return {name: node.WEIGHT * orthogonal_loss(network, node.FORM)} if node.WEIGHT else {}

    @torch.no_grad()
    def _record(self, on_real: torch.Tensor, on_fake: torch.Tensor, real: torch.Tensor, fake: torch.Tensor) -> None:
        statistics = self.duel.statistics(on_real, on_fake)
        if not statistics:
            return
        statistics["diversity"] = _spread(fake) / _spread(real).clamp(min=1e-6)
        means = mean_over_processes(torch.stack(list(statistics.values())))
        record_statistics("image", dict(zip(statistics, means, strict=True)))

    def picture(self) -> torch.Tensor:
        z = self.latents.fixed(_GRID, self.device, self.cfg.SEED)
        return grid(self.generator(z))


def grid(images: torch.Tensor, columns: int = 8) -> torch.Tensor:
    """(N, C, S, S) in [-1, 1] -> (3, H, W) in [0, 1], side by side in rows of `columns`; alpha is left out."""
    return make_grid((images[:, :3].float().clamp(-1, 1) + 1) / 2, nrow=columns, padding=2, pad_value=1.0)


def build_game(cfg: CfgNode, key: Colour = GREEN) -> CarGame:
    """The game that `cfg` describes, on its device, initialised from torch's global random state; errors as above."""
    return CarGame(cfg, build_networks(cfg), key).to(cfg.MODEL.DEVICE)


def _spread(images: torch.Tensor) -> torch.Tensor:
    """The deviation of a pixel over the batch, averaged over all pixels."""
    return images.float().std(dim=0, correction=0).mean()


def _adam(networks: Sequence[nn.Module], node: CfgNode) -> torch.optim.Optimizer:
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return fused_adam(
        torch.optim.Adam, parameters, lr=node.BASE_LR, betas=tuple(node.BETAS), weight_decay=node.WEIGHT_DECAY
    )
