# SPDX-License-Identifier: Apache-2.0
"""A click group whose commands are the files of a folder, imported only when called."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import click

import regraft


class VerbGroup(click.Group):
    """Commands are the modules in `path` without a leading underscore; each has an attribute `command`.

    The verb is the module's name with `-` for `_` (and without a trailing `_`, for Python's own words).
    """

    def __init__(self, name: str, path: Iterable[str], package: str, **settings: Any) -> None:
        settings.setdefault("help", "Delta updates of whole images for embedded Linux devices.")
        settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(name, **settings)
        self._package = package
        self._modules = {
            module.name.rstrip("_").replace("_", "-"): module.name
            for module in pkgutil.iter_modules(list(path))
            if not module.name.startswith("_")
        }
        if package == "regraft.cli":
            self.params.append(_version_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(f"{self._package}.{module}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a fault of ours, not of the user
        return command


def _version_option() -> click.Option:
    def show(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"regraft {regraft.__version__}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version and exit."
    )
