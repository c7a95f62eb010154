"""The head engine: trains heads on plain token arrays. Needs torch and numpy only, so it runs where nothing else is."""

from .evaluate import apply_head, teach
from .run import UNKNOWN, Choice, EpochRecord, HeadConfig, HeadData, HeadJob, HeadResult, Lesson
from .tokens import TokenTable
from .train import Failure, train_head, train_heads

__all__ = [
    "UNKNOWN",
    "Choice",
    "EpochRecord",
    "Failure",
    "HeadConfig",
    "HeadData",
    "HeadJob",
    "HeadResult",
    "Lesson",
    "TokenTable",
    "apply_head",
    "teach",
    "train_head",
    "train_heads",
]
