"""The image-only classifier: the baseline of every comparison in the paper."""

from .method import Method

METHOD = Method(
    name="image",
    reads=("image",),
    summary="Supervised training on image tokens alone (the classifier f of section 2.2, without reports).",
)
