"""The human grid: can a person tell generated cars from crops?"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from car_gan.crops.dataset import crops_of
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.evaluation.image_features import as_bytes
from gan_plugin.files import write_whole
from gan_plugin.visualization.page import lossless, save_page, template

from .trained import Trained

PAGE, KEY = "judge.html", "judge_key.json"
REAL, GENERATED = "real", "generated"
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Judgement:
    """How well a person told cars apart.

    Attributes:
        marked, unmarked: cars with and without an answer.
        right: answers that are right.
        accuracy: right of marked; 1/2 is what guessing gives.
        low, high: exact (Clopper and Pearson) confidence interval of the accuracy, 95 %.
        p_guessing: chance of an accuracy at least as far from 1/2 for somebody who guesses.
        fooled: share of the generated cars marked that were taken for real; None if none of them was marked.
    """

    marked: int
    unmarked: int
    right: int
    accuracy: float
    low: float
    high: float
    p_guessing: float
    fooled: float | None

    def sentence(self) -> str:
        """What it means."""
        verdict = (
            "which guessing would give too" if self.low <= 0.5 <= self.high else "which is not what guessing would give"
        )
        fooled = (
            "no generated car was marked"
            if self.fooled is None
            else f"{self.fooled:.0%} of the generated cars were taken for real"
        )
        return (
            f"{self.right} of {self.marked} cars were told right: {self.accuracy:.0%}, 95 % interval {self.low:.0%} to "
            f"{self.high:.0%}, {verdict} (p = {self.p_guessing:.2g}); {fooled}; {self.unmarked} cars were left out."
        )


def write_judge(trained: Trained, output: Path, count: int, seed: int) -> Path:
    """Write a page of shuffled crops and samples into `output`, and its key, which says what each of them is.

    Args:
        trained: the generator.
        output: folder, made if need be.
        count: cars on the page, half of them generated.
        seed: of samples, choice and order.

    Returns:
        The path of the page.

    Raises:
        UserError: there are too few crops, or the folder cannot be written.
    """
    crops = crops_of(trained.cfg)
    half = count // 2
    if count % 2 or not 1 <= half <= len(crops):
        raise UserError(f"--count is {count}; set it to an even number from 2 to {2 * len(crops)}, twice the crops.")
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(crops), generator=random)[:half].tolist()
    real = torch.stack([crops.pixels(index)[:3] for index in chosen])
    images = torch.cat([real, as_bytes(trained.images(trained.latents(half, seed)))])
    order = torch.randperm(2 * half, generator=random)
    truth = [REAL if index < half else GENERATED for index in order.tolist()]
    page = hashlib.sha256(images[order].numpy().tobytes()).hexdigest()[:16]
    pictures = [
        lossless(image.permute(1, 2, 0).numpy(), f"Car {number + 1}.", "") for number, image in enumerate(images[order])
    ]
    text = template(f"{PAGE}.j2", [Path(__file__).parent]).render(page=page, pictures=pictures, kinds=(REAL, GENERATED))
    key = json.dumps({"page": page, "weights": str(trained.weights), "seed": seed, "truth": truth}, indent=1) + "\n"
    save_page(text, output / PAGE)
    write_whole(output / KEY, key)
    return output / PAGE


def judge_answers(answers: Path, key: Path) -> Judgement:
    """Score the answers that the page has saved.

    Raises:
        UserError: a file cannot be read, they are of two pages, or no car is marked.
    """
    given, known = _read(answers), _read(key)
    with as_user_error(f"{answers} or {key} is not as the page saves it", "save the answers again"):
        if given["page"] != known["page"]:
            raise UserError(f"{answers} is of another page than {key}; name the key that was written with the page.")
        truth, marks = dict(enumerate(known["truth"])), given["answers"]
        pairs = [(truth[int(number)], kind) for number, kind in marks.items() if kind in (REAL, GENERATED)]
    if not pairs:
        raise UserError(f"{answers} marks no car; mark some on the page and save it again.")
    right = sum(kind == mark for kind, mark in pairs)
    test = binomtest(right, len(pairs), 0.5)
    interval = test.proportion_ci(_CONFIDENCE, method="exact")
    of_generated = [mark == REAL for kind, mark in pairs if kind == GENERATED]
    fooled = sum(of_generated) / len(of_generated) if of_generated else None
    numbers = (right / len(pairs), float(interval.low), float(interval.high), float(test.pvalue))
    return Judgement(len(pairs), len(truth) - len(pairs), right, *numbers, fooled)


def write_judgement(judgement: Judgement, path: Path) -> None:
    """Write all numbers and the sentence as JSON."""
    text = json.dumps({**asdict(judgement), "sentence": judgement.sentence()}, indent=1) + "\n"
    write_whole(path, text)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON file; save it again.") from error
