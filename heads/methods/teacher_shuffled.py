"""A control: a teacher whose reports are about somebody else, so that only the images can teach it anything."""

from .method import Method

METHOD = Method(
    name="teacher-shuffled",
    reads=("image", "text"),
    other_reports=True,
    summary="Control: a teacher that reads the reports of other subjects, in training and in the test.",
)
