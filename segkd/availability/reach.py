"""Whether hosts answer from this machine: one short look at each, all at once."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

from segkd import __version__

OFFLINE = "SEGKD_OFFLINE"
SECONDS = 3.0
_GATEWAY = {502, 503, 504}  # what a proxy says of a host that it cannot reach
_known: dict[str, str] = {}  # per host, for the rest of this process


def offline() -> bool:
    """Whether $SEGKD_OFFLINE says that no host is to be asked."""
    return os.environ.get(OFFLINE, "") not in {"", "0"}


def unreachable(addresses: Iterable[str], seconds: float = SECONDS) -> dict[str, str]:
    """Why its host cannot be had, per http address; nothing for those whose host answers.

    Any answer will do, a refusal too. Takes `seconds` at most, whatever the number of hosts; each is asked once.
    """
    hosts = {address: host for address in addresses if (host := _host_of(address))}
    if offline():
        return dict.fromkeys(hosts, f"{OFFLINE} is set, so no host was asked")
    _ask(set(hosts.values()) - _known.keys(), seconds)
    return {address: why for address, host in hosts.items() if (why := _known[host])}


def _host_of(address: str) -> str:
    """`scheme://host[:port]` of an http or https address, else ""."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} else ""


def _ask(hosts: set[str], seconds: float) -> None:
    """Fill `_known`; threads that are stuck in a name server are left behind, since nothing can stop them."""
    deadline = time.monotonic() + seconds
    found = {host: f"{_name(host)} does not answer" for host in hosts}

    def ask(host: str) -> None:
        found[host] = _fault(host, seconds)

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in sorted(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    _known.update(found)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it is an answer."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


def _fault(host: str, seconds: float) -> str:
    """Why a host cannot be had, or "". Proxies of the environment are used, as they are when files are fetched."""
    request = urllib.request.Request(f"{host}/", method="HEAD", headers={"User-Agent": f"segkd/{__version__}"})
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"{_name(host)} answers HTTP {error.code}" if error.code in _GATEWAY else ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {_name(host)} is not trusted"
        return f"{_name(host)} does not answer"


def _name(host: str) -> str:
    return host.partition("://")[2]
