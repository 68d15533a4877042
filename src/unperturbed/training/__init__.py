"""Networks, images and a recipe become trained networks, many matched seeds at once."""

from unperturbed.training.codes import Codes
from unperturbed.training.sgd import Diverged, State, begin, choose_vectorised, pack, train, unpack

__all__ = ["Codes", "Diverged", "State", "begin", "choose_vectorised", "pack", "train", "unpack"]
