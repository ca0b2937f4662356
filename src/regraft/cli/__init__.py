# SPDX-License-Identifier: Apache-2.0
"""The command line: one verb, one file. A file `verb.py` here holds a click command named `command`.

stdout carries results, stderr carries words. Modules whose name starts with an underscore are shared parts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from regraft.cli._descriptors import allow_many
from regraft.cli._group import VerbGroup
from regraft.cli._memory import be_frugal
from regraft.cli._output import fail, say


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Bad input shows cause and cure and exits with the class's status, no traceback."""
    import click

    from regraft.errors import RegraftError, UsageError

    be_frugal()
    allow_many()
    group = VerbGroup("regraft", __path__, __name__)
    try:
        status = group.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        sys.stdout.flush()
    except RegraftError as error:
        status = fail(error)
    except click.UsageError as error:
        usage = error.ctx.get_usage() + "\n" if error.ctx else ""
        status = fail(UsageError(usage + error.format_message()))
    except click.ClickException as error:
        status = fail(RegraftError(error.format_message()))
    except (KeyboardInterrupt, click.Abort):
        say("interrupted; run the same command again to continue")
        status = 130
    except BrokenPipeError:
        sys.stderr.close()
        status = 141
    except OSError as error:
        status = fail(RegraftError(str(error), cure="check the path, its permissions and the space left"))
    sys.exit(status if isinstance(status, int) else 0)
