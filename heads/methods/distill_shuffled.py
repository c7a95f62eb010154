"""A control: taught by `teacher-shuffled`. What it gains, a student gains without any true report."""

from .method import Method

METHOD = Method(
    name="distill-shuffled",
    reads=("image",),
    objective="distill",
    teacher="teacher-shuffled",
    summary="Control: distillation from a teacher that read the reports of other subjects.",
)
