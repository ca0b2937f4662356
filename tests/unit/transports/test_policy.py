# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from regraft.errors import PolicyError, RedirectError, UsageError
from regraft.transports.policy import Policy, parse_url, proxy_from

ORIGIN = parse_url("http://example.org/a/b")
SECURE = parse_url("https://example.org/a/b")


def test_credentials_are_taken_out_of_the_url() -> None:
    location = parse_url("http://me:p%40ss@Example.org:8080/f?x=1#y")
    assert location.url == "http://example.org:8080/f?x=1"
    assert location.origin == "http://example.org:8080"
    assert Policy().request_headers(location, location)["Authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize(
    "url",
    ["", "f", "/f", "file:///f", "ftp://h/f", "http://", "http://h:99999/", "http://h:x/", "http://[::1/",
     "http://h/a b", "http://h/\n", "http://h/\u00e4", "http://h:0/", "http:\\\\h", "http://h/" + "x" * 9000],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)


def test_errors_do_not_tell_passwords() -> None:
    with pytest.raises(UsageError) as caught:
        parse_url("http://me:secret@h:x/")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Policy(authorization="secret", proxy="http://me:secret@p"))


def test_scheme_policy() -> None:
    with pytest.raises(PolicyError):
        Policy(schemes=frozenset({"https"})).admit("http://h/")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0", "ä"])
def test_headers_cannot_be_smuggled(value: str) -> None:
    with pytest.raises(UsageError):
        Policy(authorization=value)
    with pytest.raises(UsageError):
        Policy(headers=((value, "x"),))


@pytest.mark.parametrize(
    ("current", "target", "found"),
    [
        (ORIGIN, "c", "http://example.org/a/c"),
        (ORIGIN, "/c", "http://example.org/c"),
        (ORIGIN, "//other.org/c", "http://other.org/c"),
        (ORIGIN, "https://example.org/c", "https://example.org/c"),
        (SECURE, "https://cdn.example.org/c", "https://cdn.example.org/c"),
    ],
)
def test_redirects_that_are_followed(current: object, target: str, found: str) -> None:
    assert Policy().follow(current, current, target).url == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("current", "target"),
    [
        (SECURE, "http://example.org/c"),
        (ORIGIN, "file:///etc/passwd"),
        (ORIGIN, "ftp://example.org/c"),
        (ORIGIN, None),
        (ORIGIN, ""),
        (ORIGIN, "http://127.0.0.1/c"),
        (ORIGIN, "http://localhost/c"),
        (ORIGIN, "http://169.254.169.254/latest"),
        (ORIGIN, "http://[::1]/c"),
        (ORIGIN, "http://[::ffff:127.0.0.1]/c"),
        (ORIGIN, "http://0.0.0.0/c"),
    ],
)
def test_redirects_that_are_refused(current: object, target: str | None) -> None:
    with pytest.raises(RedirectError):
        Policy().follow(current, current, target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("http://example.org/x", True),
        ("https://example.org/x", True),
        ("http://example.org:81/x", False),
        ("http://example.org.evil.org/x", False),
        ("http://cdn.example.org/x", False),
    ],
)
def test_who_is_told_secrets(target: str, told: bool) -> None:
    policy = Policy(authorization="Bearer s", headers=(("X-Key", "s"),))
    headers = policy.request_headers(ORIGIN, parse_url(target))
    assert ("Authorization" in headers, "X-Key" in headers) == (told, told)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ""),
        ({"http_proxy": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, ""),
        ({"https_proxy": "http://p:1"}, ""),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "other, example.org"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": ".org"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "ample.org"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "example.org:81"}, "http://p:1"),
    ],
)
def test_proxy_of_the_environment(environment: dict[str, str], found: str) -> None:
    assert proxy_from(environment, ORIGIN) == found


def test_proxy_given_wins() -> None:
    environment = {"http_proxy": "http://p:1"}
    assert Policy(proxy="me:x@q:2", environment=environment).proxy_for(ORIGIN) == "http://me:x@q:2"
    assert Policy(proxy="", environment=environment).proxy_for(ORIGIN) is None
