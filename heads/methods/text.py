"""The text-only classifier: how well the report predicts the label (Table 2 of the paper)."""

from .method import Method

METHOD = Method(
    name="text",
    reads=("text",),
    summary="Supervised training on report tokens alone (the text model of Table 2).",
)
