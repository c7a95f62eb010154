"""A control: a teacher that knows nothing. What it gains, a student gains by soft targets as such."""

from .method import Method

METHOD = Method(
    name="distill-constant",
    reads=("image",),
    objective="distill",
    frequencies=True,
    summary="Control: distillation from the class frequencies of the training samples, the same for every sample.",
)
