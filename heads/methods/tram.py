"""Transfer and marginalise (Collier et al., 2022): the report helps in training and is not needed after."""

from .method import Method

METHOD = Method(
    name="tram",
    reads=("image", "text"),
    objective="tram",
    privileged=("text",),
    summary="The image tower learns through a classifier that also sees the report; a second one, without it, serves.",
)
