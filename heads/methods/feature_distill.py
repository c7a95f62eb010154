"""Feature distillation: the student also regresses what the teacher's classifier sees (hints; Romero et al., 2015)."""

from .method import Method

METHOD = Method(
    name="feature-distill",
    reads=("image",),
    objective="feature-distill",
    teacher="teacher",
    summary="An image-only student that learns to predict the teacher's pooled representation of image and report.",
)
