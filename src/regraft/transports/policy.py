# SPDX-License-Identifier: Apache-2.0
"""Where bytes may come from and who is told our secrets: schemes, redirects, proxies, TLS, credentials. Pure."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import regraft
from regraft.errors import PolicyError, RedirectError, UsageError

_PORTS = {"http": 80, "https": 443}
_LONGEST_URL = 8192
_SECRET = re.compile(r"//[^/]*@")


class Location(NamedTuple):
    """A URL without credentials and fragment, taken apart; `userinfo` is `name:password` or ""."""

    url: str
    scheme: str
    host: str
    port: int
    userinfo: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_url(url: str) -> Location:
    """Take an absolute http or https URL apart. Raises UsageError."""
    shown = _SECRET.sub("//***@", url[:80])
    if len(url) > _LONGEST_URL:
        raise UsageError(f"URL of {len(url)} characters, more than {_LONGEST_URL}")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise UsageError(f"URL {shown!r} has characters that must be percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"URL {shown!r} is malformed: {error}") from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise UsageError(
            f"URL {shown!r} is not http or https", cure="give an http:// or https:// URL, or a file's path"
        )
    host = (parts.hostname or "").lower()
    if not host or port == 0:
        raise UsageError(f"URL {shown!r} has no host" if not host else f"URL {shown!r} has port 0")
    userinfo, at, address = parts.netloc.rpartition("@")
    clean = SplitResult(scheme, address.lower(), parts.path or "/", parts.query, "")
    return Location(urlunsplit(clean), scheme, host, port or _PORTS[scheme], userinfo if at else "")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a Fetcher behaves towards the network.

    Args:
        schemes: what may be spoken; leave `http` out to insist on TLS.
        redirect_hosts: hosts that a redirect may lead to besides the first one; None for any. Bytes are verified
            wherever they come from; credentials go to the first host only.
        authorization: value of the Authorization header, e.g. `TargetToken ...`, `GatewayToken ...`, `Bearer ...`.
        headers: more headers, treated as secrets like `authorization`.
        proxy: URL of a proxy for everything, "" for none whatever `environment` says, None for what it says.
        environment: where `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` are looked up.
        ca_file: PEM file of trusted authorities instead of the system's.
        client_certificate, client_key: PEM files for TLS client authentication.
    """

    schemes: frozenset[str] = frozenset(("http", "https"))
    redirect_hosts: frozenset[str] | None = None
    authorization: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    user_agent: str = f"regraft/{regraft.__version__}"
    proxy: str | None = field(default=None, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None

    def __post_init__(self) -> None:
        given = [("Authorization", self.authorization or ""), ("User-Agent", self.user_agent), *self.headers]
        for name, value in given:
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise UsageError(f"{name[:40]!r} is no name of a header")
            if not value.isprintable() or not value.isascii():
                raise UsageError(f"the value of header {name} has characters that may not be in a header")

    def admit(self, url: str) -> Location:
        """Take `url` apart if it may be asked. Raises UsageError, PolicyError."""
        location = parse_url(url)
        if location.scheme not in self.schemes:
            raise PolicyError(
                f"{location.url} is {location.scheme}, which is not allowed here",
                cure=f"use a URL of {' or '.join(sorted(self.schemes))}",
            )
        return location

    def request_headers(self, origin: Location, target: Location) -> dict[str, str]:
        """Headers for a request to `target` that began at `origin`: secrets only if both are the same server."""
        found = {"User-Agent": self.user_agent, "Accept-Encoding": "identity"}
        if not _same_server(origin, target):
            return found
        if origin.userinfo:
            token = base64.b64encode(unquote(origin.userinfo).encode()).decode()
            found["Authorization"] = f"Basic {token}"
        if self.authorization:
            found["Authorization"] = self.authorization
        found.update(self.headers)
        return found

    def follow(self, origin: Location, current: Location, target: str | None) -> Location:
        """Where a redirect from `current` to `target` leads, if it may be followed. Raises RedirectError."""
        if not target:
            raise RedirectError(f"{current.url} redirects to nowhere")
        try:
            found = parse_url(urljoin(current.url, target.strip()))
        except (UsageError, ValueError) as error:
            raise RedirectError(f"{current.url} redirects to {target[:200]!r}: {error}") from error
        if current.scheme == "https" and found.scheme != "https":
            raise RedirectError(
                f"{current.url} redirects from https to {found.url}", cure="have the server redirect to https"
            )
        if found.scheme not in self.schemes:
            raise RedirectError(f"{current.url} redirects to {found.url}, whose scheme is not allowed here")
        if found.host != origin.host:
            if self.redirect_hosts is not None and found.host not in self.redirect_hosts:
                raise RedirectError(f"{current.url} redirects to host {found.host}, which is not allowed here")
            if _is_inside(found.host) and not _is_inside(origin.host):
                raise RedirectError(f"{current.url} redirects to {found.host}, an address of this machine or its link")
        return found._replace(userinfo="")

    def proxy_for(self, location: Location) -> str | None:
        """URL of the proxy to use, None to connect directly. Raises UsageError when it is malformed."""
        proxy = self.proxy if self.proxy is not None else proxy_from(self.environment, location)
        if not proxy:
            return None
        found = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        return found.origin if not found.userinfo else found.origin.replace("://", f"://{found.userinfo}@", 1)


def proxy_from(environment: Mapping[str, str], location: Location) -> str:
    """What the usual variables say for `location`, "" for a direct connection. Lower-case names win over others."""
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for entry in exceptions.split(","):
        name, _, port = entry.strip().lower().partition(":")
        if port and port != str(location.port):
            continue
        name = name.lstrip("*").lstrip(".")
        if entry.strip() == "*" or (name and (location.host == name or location.host.endswith(f".{name}"))):
            return ""
    for name in (f"{location.scheme}_proxy", "all_proxy"):
        # HTTP_PROXY could have been set by a remote peer through CGI (CVE-2016-5385): only the lower-case name counts
        value = environment.get(name) or (environment.get(name.upper()) if name != "http_proxy" else None)
        if value:
            return value
    return ""


def _same_server(first: Location, second: Location) -> bool:
    if first.host != second.host:
        return False
    upgraded = (first.scheme, first.port, second.scheme, second.port) == ("http", 80, "https", 443)
    return upgraded or (first.scheme, first.port) == (second.scheme, second.port)


def _is_inside(host: str) -> bool:
    """Whether `host` names this machine or its link: where a redirect from outside has no business."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_loopback or address.is_link_local or address.is_unspecified
