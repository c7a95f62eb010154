"""A control: more training alone. What a student gains over this, it does not gain by the teacher's epochs."""

from .method import Method

METHOD = Method(
    name="image-long",
    reads=("image",),
    epochs_factor=2,
    summary="Control: as image, for as many epochs as a teacher and its student take together.",
)
