"""Cityscapes with an account: the login as the site wants it, and secrets that turn up nowhere."""

from __future__ import annotations

import importlib.machinery
import json
import logging
import sys
import traceback
import types
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import zipped
from web_server import Server, answer, serving, sound

from segkd.data import account
from segkd.data.account import Credentials, Session, credentials
from segkd.data.archives import Archive
from segkd.data.fetch import Patience
from segkd.data.published import bring
from segkd.errors import ConfigError, DownloadError, SegkdError

USER, PASSWORD = "a.person@example.org", "päss&wörd=+ %"
QUICK = Patience(attempts=2, timeout=2, pause=0.01)
FORM = b"<!DOCTYPE html><form action=/login/ method=post>"


class Site:
    """The pages of cityscapes-dataset.com that matter: a form that wants its cookie back, files behind a cookie."""

    def __init__(self, server: Server, body: bytes) -> None:
        self.server, self.body, self.posts = server, body, list[dict[str, str]]()
        self.cookies: list[str] = []
        server.scripts["/login/"] = self.login
        for number in (1, 3):
            server.scripts[f"/file-handling/?packageID={number}"] = self.file

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def login(self, handler, earlier: int) -> None:
        if handler.command == "GET":
            return answer(handler, FORM, Content_Type="text/html", Set_Cookie="visitor=v1; path=/; HttpOnly")
        sent = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(sent, strict_parsing=True))
        self.posts.append(form)
        welcome = form == {"username": USER, "password": PASSWORD, "submit": "Login"}
        if welcome and "visitor=v1" in handler.headers.get("Cookie", ""):
            return answer(handler, b"", 302, Location="/downloads/", Set_Cookie="member=m1; path=/; HttpOnly")
        return answer(handler, FORM + b"wrong password", Content_Type="text/html")

    def file(self, handler, earlier: int) -> None:
        self.cookies.append(handler.headers.get("Cookie", ""))
        if "member=m1" in self.cookies[-1]:
            return sound(handler, earlier, self.body)
        return answer(handler, b"", 302, Location="/login/")

    def archive(self, number: int) -> Archive:
        url = f"{self.url}/file-handling/?packageID={number}"
        return Archive(url=url, name=f"{number}.zip", wanted=("top",), into=str(number), account="cityscapes")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[Site]:
    with serving() as server:
        made = Site(server, zipped(tmp_path / "served.zip", {"top/a.png": b"pixels" * 1000}).read_bytes())
        monkeypatch.setattr(account, "LOGIN", f"{made.url}/login/")
        yield made


@pytest.fixture(autouse=True)
def nobody(monkeypatch) -> None:
    """No account from the machine that the tests run on."""
    for name in (account.USER, account.PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)


@pytest.fixture
def member(monkeypatch) -> None:
    monkeypatch.setenv(account.USER, USER)
    monkeypatch.setenv(account.PASSWORD, PASSWORD)


class LockedError(Exception):
    """As keyring.errors.KeyringError."""


def install_keyring(monkeypatch, found: Credentials | None, *, locked: bool = False) -> list[tuple[str, str | None]]:
    """A package keyring; returns the questions that it is asked."""
    asked: list[tuple[str, str | None]] = []

    def get_credential(service: str, user: str | None):
        asked.append((service, user))
        if locked:
            raise LockedError
        return found and types.SimpleNamespace(username=found.user, password=found.password)

    keyring, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    for module in (keyring, errors):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    keyring.get_credential, errors.KeyringError = get_credential, LockedError
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    return asked


def test_logged_in_once_for_all_files(tmp_path, site, member):
    how, files, _ = bring("cityscapes", [site.archive(1), site.archive(3)], tmp_path / "raw", patience=QUICK)
    assert how == "download" and sorted(files) == ["1/top/a.png", "3/top/a.png"]
    assert len(site.posts) == 1 and len(site.cookies) == 2


def test_no_login_where_nothing_must_be_fetched(tmp_path, site, member):
    archive = site.archive(1)
    bring("cityscapes", [archive], tmp_path / "raw", patience=QUICK)
    bring("cityscapes", [archive], tmp_path / "raw", patience=QUICK)
    assert len(site.posts) == 1 and len(site.cookies) == 1


@pytest.mark.fault("P3", "no account for a data set that needs one")
@pytest.mark.parametrize("given", [account.USER, account.PASSWORD, None])
def test_without_an_account_one_error_says_all(tmp_path, site, monkeypatch, given):
    if given:
        monkeypatch.setenv(given, PASSWORD)
    with pytest.raises(ConfigError) as caught:
        bring("cityscapes", [site.archive(1), site.archive(3)], tmp_path / "raw", patience=QUICK)
    text = str(caught.value)
    for words in (account.REGISTER, account.USER, account.PASSWORD, account.SERVICE, "download cityscapes --from DIR"):
        assert words in text
    assert (f"{given} is set" in text) == bool(given) and PASSWORD not in text
    assert site.server.asked == []


def test_the_keyring_is_asked_where_the_environment_is_silent(monkeypatch):
    asked = install_keyring(monkeypatch, Credentials(USER, PASSWORD))
    assert credentials() == Credentials(USER, PASSWORD)
    monkeypatch.setenv(account.USER, USER)
    assert credentials() == Credentials(USER, PASSWORD)
    assert asked == [("segkd-cityscapes", None), ("segkd-cityscapes", USER)]
    monkeypatch.setenv(account.PASSWORD, "from the environment")
    assert credentials() == Credentials(USER, "from the environment") and len(asked) == 2


@pytest.mark.fault("P3", "an empty or locked keyring")
@pytest.mark.parametrize(("found", "locked"), [(None, False), (None, True), (Credentials(USER, ""), False)])
def test_an_empty_or_locked_keyring_is_no_account(monkeypatch, found, locked):
    install_keyring(monkeypatch, found, locked=locked)
    assert credentials() is None
    assert "nothing in the keyring" in str(account.no_account())


def leaks(tmp_path: Path, caplog, error: BaseException | None = None) -> list[str]:
    """Where the password, plain or as it is sent, is to be found."""
    texts = {"log": caplog.text, "error": "".join(traceback.format_exception(error)) if error else ""}
    texts |= {str(path): path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()}
    secrets = (PASSWORD, urllib.parse.quote_plus(PASSWORD), repr(PASSWORD)[1:-1], PASSWORD.encode().decode("latin-1"))
    return [place for place, text in texts.items() if any(secret in text for secret in secrets)]


@pytest.mark.fault("P4", "user name and password in files, logs or errors of a download")
def test_secrets_are_left_nowhere(tmp_path, site, member, caplog):
    caplog.set_level(logging.DEBUG)
    _, files, more = bring("cityscapes", [site.archive(1)], tmp_path / "raw", patience=QUICK, keep=True)
    assert site.posts and leaks(tmp_path, caplog) == []
    assert PASSWORD not in json.dumps([files, more], ensure_ascii=False)
    assert repr(Credentials(USER, PASSWORD)) == str(Credentials(USER, PASSWORD)) == "Credentials()"


def refused(site: Site) -> None:
    site.server.scripts["/login/"] = lambda handler, earlier: answer(handler, FORM, Content_Type="text/html")


def forbidden(site: Site) -> None:
    def script(handler, earlier: int) -> None:
        answer(handler, b"", 403) if handler.command == "POST" else site.login(handler, earlier)

    site.server.scripts["/login/"] = script


def back_to_the_form(site: Site) -> None:
    def script(handler, earlier: int) -> None:
        if handler.command == "POST":
            answer(handler, b"", 302, Location="/login/?failed")
        else:
            site.login(handler, earlier)

    site.server.scripts["/login/"] = script


def broken(site: Site) -> None:
    site.server.scripts["/login/"] = lambda handler, earlier: answer(handler, b"", 500)


def garbled(site: Site) -> None:
    site.server.scripts["/login/"] = lambda handler, earlier: handler.wfile.write(b"?\r\n\r\n")


def echoing(site: Site) -> None:
    """A page that says back what it was sent."""

    def script(handler, earlier: int) -> None:
        sent = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        answer(handler, FORM + sent, Content_Type="text/html")

    site.server.scripts["/login/"] = script


@pytest.mark.fault("P4", "a login that fails")
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (refused, "does not accept this account"),
        (forbidden, "does not accept this account"),
        (back_to_the_form, "does not accept this account"),
        (echoing, "does not accept this account"),
        (broken, r"cannot be used[\s\S]*HTTP 500"),
        (garbled, "cannot be used"),
    ],
)
def test_a_failed_login_says_why_and_not_with_what(tmp_path, site, member, caplog, trouble, message):
    caplog.set_level(logging.DEBUG)
    trouble(site)
    with pytest.raises(DownloadError, match=message) as caught:
        bring("cityscapes", [site.archive(1)], tmp_path / "raw", patience=QUICK)
    assert "segkd download cityscapes --from DIR" in str(caught.value)
    assert leaks(tmp_path, caplog, caught.value) == []
    assert site.cookies == []


@pytest.mark.fault("P5", "a site with login that is down")
def test_a_site_that_is_down(tmp_path, site, member, monkeypatch, caplog):
    monkeypatch.setattr(account, "LOGIN", "http://127.0.0.1:9/login/")
    with pytest.raises(DownloadError, match="cannot be used") as caught:
        bring("cityscapes", [site.archive(1)], tmp_path / "raw", patience=QUICK)
    assert leaks(tmp_path, caplog, caught.value) == []


@pytest.mark.fault("P4", "a login page that redirects elsewhere")
def test_the_password_follows_no_redirect(site, member):
    """307 asks to send the form again, elsewhere."""
    elsewhere = []

    def script(handler, earlier: int) -> None:
        if handler.command == "POST":
            answer(handler, b"", 307, Location=f"{site.url}/elsewhere")
        else:
            site.login(handler, earlier)

    site.server.scripts["/login/"] = script
    site.server.scripts["/elsewhere"] = lambda handler, earlier: elsewhere.append(handler.command)
    Session().open(urllib.request.Request(f"{site.url}/login/"), 2).close()
    assert elsewhere == []


@pytest.mark.fault("P4", "a file that is redirected to another host")
def test_cookies_stay_with_their_host(tmp_path, site, member):
    """A file that is served elsewhere is fetched there, without the member's cookie."""
    seen = []

    def elsewhere(handler, earlier: int) -> None:
        seen.append(handler.headers.get("Cookie"))
        sound(handler, earlier, site.body)

    site.server.scripts["/stored.zip"] = elsewhere
    there = f"http://localhost:{site.server.server_port}/stored.zip"
    site.server.scripts["/file-handling/?packageID=1"] = lambda handler, earlier: answer(
        handler, b"", 302, Location=there
    )
    bring("cityscapes", [site.archive(1)], tmp_path / "raw", patience=QUICK)
    assert seen == [None]


def test_an_account_without_access_gets_the_way_by_hand(tmp_path, site, member):
    site.server.scripts["/file-handling/?packageID=1"] = lambda handler, earlier: answer(
        handler, b"", 302, Location="/login/"
    )
    with pytest.raises(SegkdError, match=r"1\.zip: a web page came instead of the file[\s\S]*get by hand") as caught:
        bring("cityscapes", [site.archive(1)], tmp_path / "raw", patience=QUICK)
    assert isinstance(caught.value, DownloadError)
