"""Self-distillation: the paper's baseline of a student whose teacher has seen no report."""

from .method import Method

METHOD = Method(
    name="self-distill",
    reads=("image",),
    objective="distill",
    teacher="image",
    summary="An image-only student of an image-only teacher (the baseline of section 2.2).",
)
