"""A command line on which an option that takes one value cannot be given twice: the last one would win in silence."""

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from featurestore.errors import DataError


class OnceCommand(TyperCommand):
    """A command that refuses repeated options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, after a look for options that stand there more than once."""
        given = Counter(word.partition("=")[0] for word in args if word.startswith("--"))
        for option in self.params:
            if isinstance(option, TyperOption) and not option.multiple and not option.is_flag:
                times = sum(given[name] for name in option.opts)
                if times > 1:
                    raise DataError(f"{option.opts[-1]} is given {times} times, and takes one value.")
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A Typer whose commands are such commands."""

    def command(self, name: str | None = None, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As Typer's."""
        return super().command(name, cls=OnceCommand, **options)
