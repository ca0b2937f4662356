# SPDX-License-Identifier: Apache-2.0
"""`regraft completion`: the script that lets a shell complete verbs, options and values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from regraft.errors import UsageError

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="The completion script for a shell.",
    epilog="""\b
Install, once:
  bash  regraft completion bash > ~/.local/share/bash-completion/completions/regraft
  zsh   regraft completion zsh > "${fpath[1]}/_regraft"
  fish  regraft completion fish > ~/.config/fish/completions/regraft.fish

\b
Try in the running shell:
  bash  eval "$(regraft completion bash)"
  zsh   eval "$(regraft completion zsh)"
  fish  regraft completion fish | source
""",
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL. regraft has to be on the PATH when it is used."""
    root = ctx.find_root().command
    completion = get_completion_class(shell)
    if completion is None:  # an old click
        raise UsageError(f"this click has no completion for {shell}", cure="pip install --upgrade click")
    script = completion(root, {}, "regraft", "_REGRAFT_COMPLETE")
    # Not script.source(): for bash that runs bash, to ask for its version.
    click.echo(script.source_template % script.source_vars())
