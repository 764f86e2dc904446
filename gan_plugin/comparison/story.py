"""What a comparison is about, for the reader of its report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .arms import find_arm
from .plan import command_of


@dataclass(frozen=True)
class Story:
    """The words around the numbers.

    Attributes:
        question: the heading.
        introduction: what the model, A, B, the baseline and the arms are, for a stranger.
        training_heading, training: of the section with the curves of the arms.
        descriptions: arm -> what it is; arms without one have none.
        command: that repeats the comparison.
    """

    question: str
    introduction: str
    training_heading: str
    training: str
    descriptions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    # the metric of each task that is shown first, where there is one
    headline: str = "AP"
    # whether there are discriminators: single objects are shown with what these say to them, and curves of the game
    adversarial: bool = True


def adversarial_story(plan: Mapping[str, Any]) -> Story:
    """The story of tools/compare.py, for a plan as results.json holds it."""
    return Story(
        question="Does the adversarial loss help?",
        introduction=(
            "A model that outlines objects in images was first trained on the images of subset A without any "
            "adversary: model A. From its weights each arm below was trained on subset B: the baseline as before, the "
            "others against a discriminator, a second network that learns to tell annotated masks from predicted ones. "
            "All arms of a seed had the same iterations, batches and order of images; all were evaluated on held-out "
            "images, which took no part in training."
        ),
        training_heading="How the game went",
        training=(
            "The generator is the model that draws masks, the discriminator (D) its adversary. Lower losses are better "
            "for the player whose they are. loss_adv_… is what D's verdict costs the generator, loss_rec_mask the "
            "distance of its masks to the annotated ones. D(real) is the mean probability of “annotated” that D gives "
            "annotated masks or boxes, D(fake) predicted ones; a D whose accuracy stays near 1 has won, near 0.5 it "
            "cannot tell."
        ),
        descriptions={name: arm.description for name in plan["arms"] if (arm := find_arm(name))},
        command=command_of(plan),
    )
