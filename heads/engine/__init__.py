"""The head engine: trains heads on plain token arrays. Needs torch and numpy only, so it runs where nothing else is."""

from .run import EpochRecord, HeadConfig, HeadResult
from .tokens import TokenTable
from .train import train_head

__all__ = ["EpochRecord", "HeadConfig", "HeadResult", "TokenTable", "train_head"]
