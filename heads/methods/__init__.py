"""The table of methods: one file and one line here add a method, and `tests/contracts` finds it by itself."""

from importlib import import_module

from featurestore.errors import unknown_name

from .method import Method

METHODS = {
    "image": "heads.methods.image:METHOD",
    "text": "heads.methods.text:METHOD",
    "teacher": "heads.methods.teacher:METHOD",
    "distill": "heads.methods.distill:METHOD",
    "self-distill": "heads.methods.self_distill:METHOD",
    "feature-distill": "heads.methods.feature_distill:METHOD",
    "tram": "heads.methods.tram:METHOD",
    "image-long": "heads.methods.image_long:METHOD",
    "teacher-shuffled": "heads.methods.teacher_shuffled:METHOD",
    "distill-shuffled": "heads.methods.distill_shuffled:METHOD",
    "distill-constant": "heads.methods.distill_constant:METHOD",
}
"""Name of a method -> where it is defined, "module:object"."""


def get_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownNameError: no such method; names the nearest ones and all that are known.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module), attribute)


__all__ = ["METHODS", "Method", "get_method"]
