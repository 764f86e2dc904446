"""One HTML page on several trainings: scores, curves of every arm, samples, neighbours, attention."""

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode

from car_gan.crops.dataset import CropDataset, crops_of, has_ground, read_records
from car_gan.game import latent_step
from gan_plugin.engine.checkpoint import best_name, checkpoint_file
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import extractor_label
from gan_plugin.evaluation.image_scores import ImageScores
from gan_plugin.metrics import read_metrics
from gan_plugin.visualization.curves import Curve, draw_lines
from gan_plugin.visualization.page import drawing, lossless, save_page, template

from .evaluation import Evaluation, evaluate_trained
from .pictures import attention_sheet, key_leak, label_sheet, progress, sheet, strips
from .trained import Trained, config_of, load_discriminator, load_trained

# preset -> (name in the document, FID, IS, best epoch); its sample counts are unknown, so they compare with nothing
LADDER: dict[str, tuple[str, str, str, str]] = {
    "dcgan": ("DCGAN", "371.4", "1.05", "1400"),
    "dcgan_big": ("Bigger DCGAN", "359.41", "1.036", "2800"),
    "dcgan_hinge": ("DCGAN with hinge loss", "noise", "noise", "3000"),
    "sa_dcgan": ("Self-attention DCGAN", "not given", "not given", "1600"),
    "resnet18_sa_ortho": ("ResNet18, self-attention, orthogonal", "not given", "not given", "not given"),
    "resnet18": ("ResNet18", "401.72", "1.036", "2950"),
    "resnet34": ("ResNet34", "378.69", "1.06", "3400"),
    "logan": ("LOGAN", "397.59", "1.061", "2200"),
    "logan_b": ("LOGAN-B", "363.14 (361.14 in the text)", "1.037", "3100"),
    "resnet18_logan": ("ResNet18 LOGAN", "375.12", "1.055", "1650"),
    "resnet18_sa_logan": ("ResNet18 SA-LOGAN", "361.61", "1.055", "not given"),
}
_SAMPLES = 64
_CROPS = 32
_SCORES = ("FID", "IS", "KID", "precision", "recall", "density", "coverage")
# the game itself, without what else a player minimises
_GAMES = {"loss_adv_image": "Generator's loss by verdicts", "loss_disc_image": "Discriminator's loss by verdicts"}
_PENALTIES = {
    "loss_disc_image_reg": "Discriminator: penalty on the slope (R1, gradient penalty)",
    "loss_orthogonal": "Generator: orthogonal regularisation",
    "loss_disc_orthogonal": "Discriminator: orthogonal regularisation",
    "loss_latent_step": "Generator: penalty on the step of the latents",
    "loss_adv_reconstruction": "Generator and encoder: verdicts on reconstructed crops",
    "loss_disc_reconstruction": "Discriminator: verdicts on reconstructed crops",
    "loss_rec_latent": "Encoder: distance of the latents",
    "loss_rec_image": "Encoder: distance of reconstructed crops",
}


def parts_used(arms: Mapping[str, CfgNode]) -> list[tuple[Curve, list[str]]]:
    """The drawings of those parts that arms use, each with the names of these arms.

    Args:
        arms: name -> config.
    """
    latent = {name: cfg.MODEL.LOGAN for name, cfg in arms.items() if cfg.MODEL.LOGAN.ENABLED}
    found = [
        (_explained("mask_rcnn"), _those(arms, _was_filtered)),
        (_explained("self_attention"), _those(arms, _attends)),
        (_explained("latent_optimisation"), list(latent)),
    ]
    for alpha, beta in dict.fromkeys((node.ALPHA, node.BETA) for node in latent.values()):
        users = [name for name, node in latent.items() if (alpha, beta) == (node.ALPHA, node.BETA)]
        found.append((latent_steps(alpha, beta), users))
    return [(drawing, names) for drawing, names in found if names]


def latent_steps(alpha: float, beta: float) -> Curve:
    """How far z moves: equation 2 beside plain gradient ascent that agrees with it at small gradients."""
    norms = torch.linspace(0, 3 * math.sqrt(beta), 200)
    natural = latent_step(norms[:, None], alpha, beta)[:, 0]
    lines = {
        f"natural gradient: \u03b1 |g| / (\u03b2 + |g|\u00b2), \u03b1 = {alpha:g}, \u03b2 = {beta:g}": natural,
        "gradient: \u03b1/\u03b2 |g|": alpha / beta * norms,
    }
    points = {name: np.stack([norms.numpy(), values.numpy()], axis=1) for name, values in lines.items()}
    longest = alpha / (2 * math.sqrt(beta))
    title = f"How far z moves: at most {longest:.3g}, at |g| = {math.sqrt(beta):.3g}; steep places do not throw it far"
    return draw_lines(title, points, x_label="|g|", exact=True)


def _explained(name: str) -> Curve:
    """A drawing of a part, with its title and what it shows."""
    svg = (Path(__file__).parent / f"drawings/{name}.svg").read_text(encoding="utf-8")
    title, alt = (re.search(f"<{tag}>(.*?)</{tag}>", svg)[1] for tag in ("title", "desc"))  # type: ignore[index]
    return Curve(html.unescape(title), svg, html.unescape(alt))


def _those(arms: Mapping[str, CfgNode], use: Callable[[CfgNode], bool]) -> list[str]:
    return [name for name, cfg in arms.items() if use(cfg)]


def _was_filtered(cfg: CfgNode) -> bool:
    records = read_records(Path(cfg.DATASETS.CROPS))
    return any(record.get("detector_score") is not None for record in records)


def _attends(cfg: CfgNode) -> bool:
    return bool(cfg.MODEL.GENERATOR.ATTENTION or cfg.MODEL.DISCRIMINATOR.ATTENTION)


@dataclass(frozen=True)
class Arm:
    """One training in a comparison.

    Attributes:
        name: in tables and legends.
        trained: its best generator in FID.
        metrics: lines of its metrics.json.
        found: scores, checks and sheets of the generator, by the protocol that all arms share.
        epoch: iterations of an epoch.
        crops: that it has learnt from.
    """

    name: str
    trained: Trained
    metrics: Sequence[Mapping[str, float]]
    found: Evaluation
    epoch: int
    crops: CropDataset

    @property
    def scores(self) -> ImageScores:
        """Of the images as they are."""
        return self.found.scores


def check_comparable(folders: Sequence[Path], opts: Sequence[str]) -> None:
    """Raise a UserError where two runs have one name, or would be scored by different networks."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"Two runs have the same name ({', '.join(sorted(names))}); rename a folder.")
    tests = [config_of(folder, list(opts)).TEST for folder in folders]
    # with the files in sight, so that Inception's weights are told apart too
    networks = {test.INCEPTION or extractor_label(features=test.FEATURES) for test in tests}
    if len(networks) > 1:
        raise UserError(
            f"The runs would be scored by different networks ({', '.join(sorted(networks))}); add --opts TEST.FEATURES "
            "with one network for all of them, or TEST.INCEPTION with one file."
        )


def read_arm(run: Path, output: Path, opts: Sequence[str]) -> Arm:
    """Score the best generator of a run; files go to `output`/<run's name>. Errors as in `evaluate_trained`."""
    trained = load_trained(run, opts=list(opts))
    found = evaluate_trained(trained, output / run.name)
    solver = trained.cfg.SOLVER
    crops = crops_of(trained.cfg)
    epoch = max(1, len(crops) // (solver.IMS_PER_BATCH * solver.ACCUMULATE))
    metrics = read_metrics(run / "metrics.json")
    return Arm(run.resolve().name, trained, metrics, found, epoch, crops)


def write_report(arms: Sequence[Arm], path: Path, title: str) -> None:
    """Write the page; see the module's line.

    Raises:
        UserError: `path` cannot be written.
    """
    page = template("report_cars.html.j2", [Path(__file__).parent]).render(
        title=title,
        columns=_SCORES,
        rows=[_row(arm, arm.scores) for arm in arms],
        rows_on_ground=[_row(arm, arm.found.on_ground) for arm in arms if arm.found.on_ground is not None],
        curves=[_curve(curve) for curve in _curves(arms)],
        crops=_crops(arms),
        parts=[_curve(part, names) for part, names in parts_used({arm.name: arm.trained.cfg for arm in arms})],
        sections=[_section(arm) for arm in arms],
        ladder=list(LADDER.values()),
    )
    save_page(page, path)


def _row(arm: Arm, scores: ImageScores) -> tuple[Arm, ImageScores, list[str]]:
    return arm, scores, [f"{getattr(scores, name):.4g}" for name in _SCORES]


def _curves(arms: Sequence[Arm]) -> list[Curve]:
    curves = []
    for metric, better in (("FID", "lower"), ("IS", "higher"), ("KID", "lower"), ("recall", "higher")):
        # an arm may have been scored by another network on the way than now
        for label in _labels(arms):
            lines = {arm.name: _line(arm, f"{_prefix(arm)}{label}/{metric}") for arm in arms}
            curves += _drawn(f"{metric} against epoch, by {label} ({better} is better)", lines, exact=True)
    for key, name in _GAMES.items():
        # losses of one objective compare, those of two do not
        for objective in dict.fromkeys(arm.trained.cfg.MODEL.GAN.OBJECTIVE for arm in arms):
            group = [arm for arm in arms if objective == arm.trained.cfg.MODEL.GAN.OBJECTIVE]
            title = f"{name}, {objective}, against epoch"
            curves += _drawn(title, {arm.name: _line(arm, key) for arm in group})
    others = {key for arm in arms for line in arm.metrics for key in line if key.startswith("loss_")}
    for key in sorted(others - _GAMES.keys() - {"loss_gen_total", "loss_disc_total"}):
        curves += _drawn(f"{_PENALTIES.get(key, key)} against epoch", {arm.name: _line(arm, key) for arm in arms})
    for arm in arms:
        verdicts = {"D(real)": _line(arm, "gan/image/d_real"), "D(generated)": _line(arm, "gan/image/d_fake")}
        curves += _drawn(f"{arm.name}: how real the discriminator takes images to be", verdicts)
    return curves


def _drawn(title: str, lines: Mapping[str, np.ndarray], *, exact: bool = False) -> list[Curve]:
    there = {name: points for name, points in lines.items() if len(points)}
    values = np.concatenate([points[:, 1] for points in there.values()]) if there else np.zeros(1)
    # a decade or more would squeeze the lower lines into one
    log = bool(values.min() > 0 and values.max() >= 10 * values.min())
    return [draw_lines(title, there, x_label="epoch", exact=exact, log=log)] if there else []


def _prefix(arm: Arm) -> str:
    return "ema/" if arm.trained.cfg.MODEL.GAN.EMA.DECAY > 0 else ""


def _labels(arms: Sequence[Arm]) -> list[str]:
    """The feature networks that arms were scored by while they trained."""
    keys = {key for arm in arms for line in arm.metrics for key in line if key.endswith("/FID")}
    return sorted({key.split("/")[-2] for key in keys})


def _line(arm: Arm, key: str) -> np.ndarray:
    points = [((line["iteration"] + 1) / arm.epoch, line[key]) for line in arm.metrics if key in line]
    found = np.array(points, dtype=float).reshape(-1, 2)
    return found[np.isfinite(found).all(axis=1)]


def _section(arm: Arm) -> dict[str, Any]:
    trained = arm.trained
    seed = trained.cfg.SEED
    z = trained.latents(_SAMPLES, seed)
    images = trained.images(z)
    pictures = [
        lossless(sheet(images, 8), "64 generated cars.", f"64 samples, not chosen, of {trained.weights.name}."),
        lossless(
            strips(trained, 4, 8, seed + 1),
            "Four rows of cars that change from left to right.",
            "Each row goes from one random latent to another: cars should change smoothly and stay cars.",
        ),
        lossless(
            arm.found.neighbours,
            "Eight generated cars above eight crops.",
            "Above: samples. Below: the training crops nearest to them in feature space. They should not be copies.",
        ),
    ]
    if has_ground(arm.crops):
        leak, share = key_leak(images[:16], arm.crops.key)
        alt = "Sixteen generated cars with a coloured border where the ground is not the key colour."
        caption = f"Orange: border pixels not of the key colour ({share:.1%} of them), which keying takes for car."
        pictures.append(lossless(leak, alt, caption))
    if arm.found.placed is not None:
        pictures.append(
            lossless(
                arm.found.placed,
                "Eight crops above eight generated cars, on another ground than the key colour.",
                "Above: crops. Below: samples. Both keyed alike, as the second table's scores see them.",
            )
        )
    pictures += _progress(arm)
    if trained.labels:
        by_label, caption = label_sheet(trained, seed)
        pictures.append(lossless(by_label, "Generated cars by label.", caption))
    best_is = checkpoint_file(trained.run, best_name("is"))
    if best_is.is_file():
        other = load_trained(trained.run, best_is.name, ["MODEL.DEVICE", trained.cfg.MODEL.DEVICE])
        pictures.append(
            lossless(
                sheet(other.images(z[:32]), 8),
                "32 generated cars.",
                "The same latents with the weights that were best in IS; the two scores may disagree.",
            )
        )
    pictures += _attention(trained, z[:8], images[:8])
    return {"arm": arm, "pictures": pictures, "verdict": arm.found.check.sentence()}


def _crops(arms: Sequence[Arm]) -> list[dict[str, str]]:
    """32 crops of every data set that an arm has learnt from."""
    pictures = []
    for crops in {arm.trained.cfg.DATASETS.CROPS: arm.crops for arm in arms}.values():
        indices = np.linspace(0, len(crops) - 1, min(_CROPS, len(crops))).round().astype(int)
        real = sheet(torch.stack([crops[int(index)] for index in indices]), 8)
        caption = f"{len(indices)} of the {len(crops)} crops in {crops.folder}, as the networks see them."
        pictures.append(lossless(real, "Crops: one real car each.", caption))
    return pictures


def _progress(arm: Arm) -> list[dict[str, str]]:
    found = progress(arm.trained.run / "samples", arm.trained.cfg.INPUT.SIZE)
    if found is None:
        return []
    epochs = ", ".join(f"{(iteration + 1) / arm.epoch:.3g}" for iteration in found[1])
    caption = f"The same latents while training: each row is an epoch, from the top {epochs}."
    return [lossless(found[0], "Rows of the same generated cars, later ones below.", caption)]


def _attention(trained: Trained, z: torch.Tensor, images: torch.Tensor) -> list[dict[str, str]]:
    pictures = []
    players = {"generator": (trained.generator, z)}
    discriminator = load_discriminator(trained)
    if discriminator is not None:
        players["discriminator"] = (discriminator, images.to(trained.device))
    for name, (network, inputs) in players.items():
        found = attention_sheet(network, inputs, images)
        if found is not None:
            caption = f"Self-attention of the {name}: bright is what the position in the blue ring looks at."
            pictures.append(lossless(found, f"Cars beside maps of the {name}'s attention.", caption))
    return pictures


def _curve(curve: Curve, arms: Sequence[str] = ()) -> dict[str, str]:
    return drawing(curve, f"{curve.title}. Used by {', '.join(arms)}." if arms else "")
