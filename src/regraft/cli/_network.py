# SPDX-License-Identifier: Apache-2.0
"""Options for everything that fetches, and the Fetcher they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.transports.fetcher import Fetcher


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; the command takes them as one `network` argument."""
    names = ("ca_file", "client_cert", "client_key", "proxy", "authorization", "connections", "https_only")

    def gathered(**arguments: Any) -> Any:
        settings = {name: arguments.pop(name) for name in names}
        return command(network=Network(**settings), **arguments)

    gathered.__name__, gathered.__doc__ = command.__name__, command.__doc__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed((
        click.option("--ca-file", metavar="PEM", help="Trusted authorities for https, instead of the system's."),
        click.option("--client-cert", metavar="PEM", help="Certificate to show to the server."),
        click.option("--client-key", metavar="PEM", help="Its key."),
        click.option("--proxy", metavar="URL", help="Proxy for everything; else http_proxy and so on."),
        click.option(
            "--authorization", metavar="TEXT", envvar="REGRAFT_AUTHORIZATION",
            help="Value of the Authorization header, e.g. 'TargetToken ...'. Better in REGRAFT_AUTHORIZATION.",
        ),
        click.option(
            "--connections", type=click.IntRange(1, 16), default=DEFAULT.connections, show_default=True,
            help="Connections at once.",
        ),
        click.option("--https-only", is_flag=True, help="Refuse plain http."),
    )):  # fmt: skip
        gathered = option(gathered)
    return gathered


@dataclass(frozen=True, slots=True)
class Network:
    """What the options were set to."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    authorization: str | None = None
    connections: int = DEFAULT.connections
    https_only: bool = False

    def connect(self, limits: Limits = DEFAULT) -> Fetcher:
        """A Fetcher with these settings. Raises UsageError."""
        from regraft.transports.fetcher import Fetcher
        from regraft.transports.policy import Policy

        policy = Policy(
            schemes=frozenset(("https",) if self.https_only else ("http", "https")),
            authorization=self.authorization,
            proxy=self.proxy,
            environment=dict(os.environ),
            ca_file=self.ca_file,
            client_certificate=self.client_cert,
            client_key=self.client_key,
        )
        return Fetcher(policy, replace(limits, connections=self.connections))
