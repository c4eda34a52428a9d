"""Data sets that are handed out to registered users only: Cityscapes, with the user's own account.

User name and password are read when they are needed, sent to the login page alone, and kept nowhere: they are in no
file, log, error or `repr` of this package.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import importlib
import importlib.util
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from segkd import __version__
from segkd.errors import ConfigError, DownloadError, explain

LOGIN = "https://www.cityscapes-dataset.com/login/"
REGISTER = "https://www.cityscapes-dataset.com/register/"
USER, PASSWORD = "CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD"
SERVICE = "segkd-cityscapes"  # in the keyring
MOVED = range(300, 400)


@dataclass(frozen=True)
class Credentials:
    """User name and password; neither is in its `repr`."""

    user: str = field(repr=False)
    password: str = field(repr=False)


def credentials() -> Credentials | None:
    """The user's Cityscapes account, from the environment or else the keyring (if that package is installed)."""
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if user and password:
        return Credentials(user, password)
    return _from_keyring(user or None)


def _from_keyring(user: str | None) -> Credentials | None:
    if importlib.util.find_spec("keyring") is None:
        return None
    keyring: Any = importlib.import_module("keyring")
    errors: Any = importlib.import_module("keyring.errors")
    try:
        found = keyring.get_credential(SERVICE, user)
    except errors.KeyringError:  # locked, or no backend on this machine
        return None
    return Credentials(found.username, found.password) if found and found.username and found.password else None


def no_account() -> ConfigError:
    """What is wrong, and what to do, where there is no account."""
    return ConfigError(
        explain(
            "Cityscapes is handed out to registered users only, and there is no account here.",
            expected=f"{USER} and {PASSWORD} in the environment, or both in the keyring as {SERVICE!r}",
            found=", ".join(f"{name} {'is' if os.environ.get(name) else 'is not'} set" for name in (USER, PASSWORD))
            + ("; nothing in the keyring" if importlib.util.find_spec("keyring") else "; no package keyring"),
            where="environment",
            fix=f"register at {REGISTER} (free for research; it is looked at, which takes days), then export {USER} "
            f"and {PASSWORD} (or the password by `pip install keyring` and `keyring set {SERVICE} USERNAME`); "
            "or, if you have the files: segkd download cityscapes --from DIR",
        )
    )


class Session:
    """Opens addresses of cityscapes-dataset.com; logs in before the first one, and only if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opener: urllib.request.OpenerDirector | None = None

    def open(self, request: urllib.request.Request, timeout: float) -> Any:
        """Open a request as a logged-in user; ConfigError without an account, DownloadError where it is refused."""
        with self._lock:
            if self._opener is None:
                account = credentials()
                if account is None:
                    raise no_account()
                self._opener = log_in(account, LOGIN, timeout)
        return self._opener.open(request, timeout=timeout)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, so that the password goes to one address only and the answer to it can be seen."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


def log_in(account: Credentials, login: str, timeout: float) -> urllib.request.OpenerDirector:
    """Log in as the official client does: get the form, post it; a redirect means welcome. Returns who has the cookies.

    DownloadError where the account is refused or the page cannot be reached; the password is in neither.
    """
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    visitor = urllib.request.build_opener(cookies, _Stay)
    visitor.addheaders = [("User-Agent", f"segkd/{__version__}")]
    form = {"username": account.user, "password": account.password, "submit": "Login"}
    _status(visitor, login, None, timeout)
    status, place = _status(visitor, login, urllib.parse.urlencode(form).encode(), timeout)
    if status not in MOVED or "/login" in place:
        raise _failed(
            "Cityscapes does not accept this account.",
            f"the login form again (HTTP {status})",
            login,
            f"log in at {login} with a browser to see that the account works, then correct {USER} and {PASSWORD}",
        )
    opener = urllib.request.build_opener(cookies)
    opener.addheaders = visitor.addheaders
    return opener


def _status(visitor: urllib.request.OpenerDirector, url: str, content: bytes | None, timeout: float) -> tuple[int, str]:
    """Status and Location of the answer."""
    try:
        with visitor.open(url, content, timeout=timeout) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        with error:
            if error.code in MOVED or error.code in {401, 403}:
                return error.code, error.headers.get("Location", "")
            reason = f"HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
    raise _failed("The login page of Cityscapes cannot be used.", reason, url, "try again later, or use --from DIR")


def _failed(what: str, found: str, where: str, fix: str) -> DownloadError:
    fix += "; with the files at hand: segkd download cityscapes --from DIR"
    return DownloadError(explain(what, expected="to be logged in", found=found, where=where, fix=fix))


SESSIONS: dict[str, Callable[[], Session]] = {"cityscapes": Session}
