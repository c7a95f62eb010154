"""Generalized distillation from reports (equation 2): what the paper proposes."""

from .method import Method

METHOD = Method(
    name="distill",
    reads=("image",),
    objective="distill",
    teacher="teacher",
    summary="An image-only student of a teacher that reads image and report (equation 2).",
)
