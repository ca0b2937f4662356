# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="Progress on stderr: a bar on a terminal, JSON events (one per line), or nothing.",
)
seed_option = click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="PATH",
    help="Local bytes to reuse: a file, a block device, or an image of a chunk store as STORE/NAME. Repeatable.",
)
workers_option = click.option(
    "--threads", "workers", type=click.IntRange(0, 256), default=0, help="Threads to use; 0: one per core."
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where chunk files are looked for: `stores` (none: the usual places), through the folder `cache` if any."""

    stores: tuple[str, ...] = ()
    cache: str | None = None


USUAL = Places()


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--store` and `--cache`; the command takes them as one `stores` argument, a `Places`."""

    def gathered(**arguments: Any) -> Any:
        return command(stores=Places(arguments.pop("stores"), arguments.pop("cache")), **arguments)

    gathered.__name__, gathered.__doc__ = command.__name__, command.__doc__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    gathered = click.option(
        "--cache",
        type=click.Path(file_okay=False),
        default=None,
        metavar="DIR",
        help="Keep the chunks of a casync index that were read in this store, verified, and look there first.",
    )(gathered)
    return click.option(
        "--store",
        "stores",
        multiple=True,
        metavar="URL|DIR",
        help="Where a casync index has its chunks; repeatable, looked in one after the other. "
        "[default: NAME.castr and default.castr beside NAME.caibx]",
    )(gathered)


def placement_options(command: F) -> F:
    """`--align` and `--layout`, for what `placement` makes of them."""
    command = click.option(
        "--layout",
        type=click.Choice(["none", "auto"]),
        default="none",
        show_default=True,
        help="auto: cut where files begin and end, too, in ext4, squashfs and erofs.",
    )(command)
    return click.option(
        "--align", type=Size(), default=None, metavar="SIZE", help="Move every cut to a multiple of SIZE, e.g. 4KiB."
    )(command)


class Size(click.ParamType[int]):
    """A number above 0 with an optional suffix: k, M, G (decimal) or Ki, Mi, Gi."""

    name = "size"
    _UNITS: ClassVar[dict[str, int]] = {
        "": 1,
        "k": 10**3,
        "m": 10**6,
        "g": 10**9,
        "ki": 1 << 10,
        "mi": 1 << 20,
        "gi": 1 << 30,
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        number = text.rstrip("kmgib")
        unit = text[len(number) :].removesuffix("b") if text[len(number) :] != "b" else ""
        try:
            count = int(float(number) * self._UNITS[unit])
        except (ValueError, KeyError, OverflowError):
            count = 0
        if count <= 0:
            self.fail(f"{value!r} is not a size such as 500k, 20M or 1Gi", param, ctx)
        return count


def examples(*lines: str) -> str:
    """The epilog of a --help page."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def is_given(option: str) -> bool:
    """Whether the user gave this option (its parameter's name) to the verb that runs, rather than left the default."""
    source = click.get_current_context().get_parameter_source(option)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
