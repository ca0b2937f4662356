# SPDX-License-Identifier: Apache-2.0
"""Options for everything that fetches, and the Fetcher they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._options import Size
from regraft.errors import RegraftError
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.transports.fetcher import Fetcher
    from regraft.transports.hosts import HostMemory

_HOSTS = "hosts.json"


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "ca_file": click.option("--ca-file", metavar="PEM", help="Trusted authorities for https, instead of the system's."),
    "client_cert": click.option("--client-cert", metavar="PEM", help="Certificate to show to the server."),
    "client_key": click.option("--client-key", metavar="PEM", help="Its key."),
    "proxy": click.option("--proxy", metavar="URL", help="Proxy for everything; else http_proxy and so on."),
    "authorization": click.option(
        "--authorization", metavar="TEXT", envvar="REGRAFT_AUTHORIZATION",
        help="Value of the Authorization header, e.g. 'TargetToken ...'. Better in REGRAFT_AUTHORIZATION.",
    ),
    "connections": click.option(
        "--connections", type=click.IntRange(1, 64), default=None,
        help=f"Connections at once.  [default: {DEFAULT.connections}; to a store of chunk files "
        f"{DEFAULT.chunk_connections}]",
    ),
    "rate_limit": click.option(
        "--rate-limit", type=Size(), default=None, help="Bytes per second to fetch, over all connections: 500k, 2M."
    ),
    "https_only": click.option("--https-only", is_flag=True, help="Refuse plain http."),
}  # fmt: skip


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; the command takes them as one `network` argument. One that it has itself already is left out."""
    own = list(getattr(command, "__click_params__", []))
    taken = {each.name for each in own}
    names = [name for name in _OPTIONS if name not in taken]

    def gathered(**arguments: Any) -> Any:
        settings = {name: arguments.pop(name) for name in names}
        return command(network=Network(**settings), **arguments)

    gathered.__name__, gathered.__doc__ = command.__name__, command.__doc__
    gathered.__click_params__ = own  # type: ignore[attr-defined]  # click keeps options there
    for name in reversed(names):
        gathered = _OPTIONS[name](gathered)
    return gathered


@dataclass(frozen=True, slots=True)
class Network:
    """What the options were set to."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    authorization: str | None = None
    connections: int | None = None  #: None: those of the limits
    rate_limit: int | None = None  #: bytes per second
    https_only: bool = False

    def limits(self, limits: Limits = DEFAULT) -> Limits:
        """`limits` with as many connections as were asked for."""
        if self.connections is None:
            return limits
        return replace(limits, connections=self.connections, chunk_connections=self.connections)

    @contextmanager
    def connect(self, limits: Limits = DEFAULT) -> Iterator[Fetcher]:
        """A Fetcher with these settings, which knows what earlier runs learnt of the hosts. Raises UsageError."""
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
        with (
            remembered_hosts() as hosts,
            Fetcher(policy, self.limits(limits), hosts=hosts, rate=self.rate_limit or 0) as fetcher,
        ):
            yield fetcher


@contextmanager
def remembered_hosts() -> Iterator[HostMemory]:
    """What is known of hosts, kept in the state folder where that can be written: it saves asking in vain."""
    from regraft.engine.files import FileDirectory
    from regraft.engine.medium import read_all, save
    from regraft.engine.state import state_folder
    from regraft.transports.hosts import HostMemory

    hosts, directory = HostMemory(), None
    with suppress(RegraftError, OSError):
        directory = FileDirectory(state_folder())
    if directory is not None:
        with suppress(RegraftError, OSError, ValueError):
            medium = directory.open(_HOSTS)
            try:
                hosts = HostMemory.parse(read_all(medium, DEFAULT.description_size))
            finally:
                medium.close()
    before = hosts.dump()
    try:
        yield hosts
    finally:
        if directory is not None:
            with suppress(RegraftError, OSError):
                if hosts.dump() != before:
                    save(directory, _HOSTS, hosts.dump())
            directory.close()
