"""Whose turn it is: an iteration belongs to the discriminators or to the generator."""

from dataclasses import dataclass

from gan_plugin.engine.image_game import Phase

DISCRIMINATOR, GENERATOR = "discriminator", "generator"


@dataclass(frozen=True)
class Turns:
    """`disc` turns of the discriminators, then `gen` turns of the generator, and so on (COIGAN's code)."""

    disc: int = 1
    gen: int = 1

    def turn(self, player: str, iteration: int) -> int | None:
        """The number of this turn among the player's own, from 0; None if it is the other's."""
        cycle, place = divmod(iteration, self.disc + self.gen)
        if player == DISCRIMINATOR:
            return cycle * self.disc + place if place < self.disc else None
        return cycle * self.gen + place - self.disc if place >= self.disc else None

    def is_due(self, player: str, iteration: int, every: int = 1) -> bool:
        """Whether the player does at this iteration what it does at every `every`-th of its turns."""
        turn = self.turn(player, iteration)
        return turn is not None and turn % every == 0


@dataclass(frozen=True)
class TurnPhase(Phase):
    """A phase that is due at every `every`-th turn of its player, and only then."""

    turns: Turns = Turns()
    player: str = GENERATOR

    def is_due(self, iteration: int) -> bool:
        return self.turns.is_due(self.player, iteration, self.every)
