"""The teacher: image and report, each with its own attention (the network g of section 2.2)."""

from .method import Method

METHOD = Method(
    name="teacher",
    reads=("image", "text"),
    summary="Supervised training on image and report tokens, pooled apart and concatenated (g of equation 1).",
)
