"""One self-contained HTML file about a run of COIGAN, from what it left in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coigan.evaluation.crops import POOLED, ROWS
from coigan.evaluation.protocol import WHOLE
from coigan.visualization.charts import histogram
from gan_plugin.errors import UserError
from gan_plugin.metrics import read_metrics
from gan_plugin.visualization.curves import Group, draw_curves
from gan_plugin.visualization.page import drawing, embed, save_page, template

_HERE = Path(__file__).parent

_GROUPS = (
    Group("Generator: adversarial losses", {"loss_adv_defect": "of the defects", "loss_adv_ref": "of the whole image"}),
    Group(
        "Generator: distance to the base image",
        {
            "loss_l1_smooth": "smooth masked L1",
            "loss_perceptual_smooth": "smooth masked perceptual",
            "loss_l1": "L1",
            "loss_perceptual": "perceptual",
        },
        log=True,
    ),
    Group("Discriminators", {"loss_disc_defect": "of the defects", "loss_disc_ref": "of the whole image"}),
    Group(
        "How real they take what they see to be",
        {
            "gan/image/d_real": "real defects",
            "gan/image/d_fake": "painted defects",
            "gan/reference/d_real": "real images",
            "gan/reference/d_fake": "painted images",
        },
        bounds=(-0.03, 1.03),
    ),
    Group("Regularisers", {"loss_disc_r1": "R1", "loss_path_length": "path length"}, log=True),
    Group(
        "Crop FID on the way",
        {
            "ema/lite0-crops/FID": "EfficientNet-Lite0",
            "ema/builtin-crops/FID": "random features",
            "ema/inception-crops/FID": "Inception",
        },
    ),
    Group(
        "FID of whole pictures on the way",
        {"ema/lite0/FID": "EfficientNet-Lite0", "ema/builtin/FID": "random features", "ema/inception/FID": "Inception"},
    ),
)
_SCORES = ("FID", "KID", "precision", "recall", "density", "coverage")


def write_run_report(
    folder: str | Path,
    path: str | Path,
    *,
    evaluation: Mapping[str, Any] | None = None,
    augmented: Sequence[tuple[bytes, str]] = (),
    facts: Sequence[tuple[str, str]] = (),
    audit: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of the run in `folder` to the HTML file `path`.

    Args:
        folder: with metrics.json and samples/.
        path: of the report; its folder is made if need be.
        evaluation: what `evaluate_trained` returned.
        augmented: pictures of the augmented set as PNG, each with its caption.
        facts: (name, value) rows on how the run was made.
        audit: what `coigan.audit.write_audit` wrote about the augmented set.
        labels: "info" of the augmented set, if it counts invisible labels.

    Returns:
        `path`.

    Raises:
        UserError: `folder` holds no run, or the report cannot be written.
    """
    folder, target = Path(folder), Path(path)
    file = folder / "metrics.json"
    if not file.is_file():
        raise UserError(f"{folder} holds no metrics.json; name the OUTPUT_DIR of a run.")
    curves = [drawing(curve) for curve in draw_curves(read_metrics(file), _GROUPS)]
    page = template("run.html.j2", [_HERE]).render(
        title=folder.resolve().name,
        facts=facts,
        grids=_grids(folder / "samples"),
        curves=curves,
        evaluation=evaluation,
        scores=_SCORES,
        rows=ROWS,
        pooled=POOLED,
        crop_scores=_SCORES[:4],
        whole_names=WHOLE,
        labels=labels,
        augmented=[embed(content, "image/png", caption, caption) for content, caption in augmented],
        audit=audit,
        agreement=_agreement(audit),
    )
    return save_page(page, target)


def _agreement(audit: Mapping[str, Any] | None) -> dict[str, str] | None:
    if audit is None:
        return None
    values = [entry["IoU"] for entry in audit["objects"]]
    drawn = histogram("Objects by agreement", values, "IoU", bins=20, span=(0.0, 1.0))
    return drawing(drawn) if drawn else None


def _grids(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("iter_*.png"))
    chosen = [files[0], files[len(files) // 2], files[-1]] if len(files) > 2 else files
    alt = "Rows of pictures: base image, base image with coloured masks, painted image."
    return [embed(file.read_bytes(), "image/png", alt, f"Iteration {int(file.stem[5:])}") for file in chosen]
