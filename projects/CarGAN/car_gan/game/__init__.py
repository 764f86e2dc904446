"""The game of the players: what each minimises, on which latents, by which optimizer."""

from .car_game import CarGame, build_game
from .latents import Latents
from .logan import LatentOptimizer, latent_step
from .orthogonal import orthogonal_penalty

__all__ = ["CarGame", "LatentOptimizer", "Latents", "build_game", "latent_step", "orthogonal_penalty"]
