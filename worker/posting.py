"""One POST to an address that a stranger chose: to public addresses alone, nothing followed, nothing waited for long.

The name is looked up once, and the connection goes to an address that was checked: a name that changes its address
between the check and the connection gains nothing.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0
MOST_BYTES = 4096


class Refused(Exception):
    """Nothing was sent, or nothing came back: `str()` says why in words for the person who set up the webhook."""


@dataclass(frozen=True)
class Response:
    status: int
    text: str
    """The beginning of the body."""


def post(url: str, body: bytes, headers: Mapping[str, str], *, allow_local: bool = False) -> Response:
    """POST `body` to `url` and return what came back, whatever its status. Raises Refused."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        port = parts.port or (443 if is_tls else 80)
        sock = _connect(_address(host, port, allow_local=allow_local))
        with _ended_after(sock, WHOLE_SECONDS):
            if is_tls:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
            return _exchange(sock, parts.netloc, path, body, headers)
    except Refused:
        raise
    except TimeoutError as error:
        raise Refused(_("The receiver did not answer in time.")) from error
    except ssl.SSLError as error:
        raise Refused(_("TLS failed: %(why)s.") % {"why": error.reason or error}) from error
    except http.client.HTTPException as error:
        raise Refused(
            _("The answer was no HTTP (%(why)s), or took too long.") % {"why": type(error).__name__}
        ) from error
    except (OSError, UnicodeError, ValueError) as error:
        raise Refused(_("The receiver cannot be reached (%(why)s).") % {"why": error}) from error


def _exchange(sock: socket.socket, netloc: str, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
    connection = http.client.HTTPConnection(netloc)
    connection.sock = sock
    try:
        connection.request("POST", path, body, {**headers, "connection": "close"})
        answer = connection.getresponse()
        # Redirects are not followed: the next address would be another stranger's choice.
        return Response(answer.status, answer.read(MOST_BYTES).decode(errors="replace").replace("\x00", "\ufffd"))
    finally:
        connection.close()


def _address(host: str, port: int, *, allow_local: bool) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """An address of `host` that may be sent to. Refused where any of them may not: nobody needs such a mixture."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(_("The name %(name)s is not known.") % {"name": host}) from error
    for *_rest, address in found:
        if not is_public(str(address[0])) and not (allow_local and _is_loopback(str(address[0]))):
            raise Refused(_("The address belongs to a private network. Nothing is sent there."))
    family, *_rest, address = found[0]
    return family, (str(address[0]), int(address[1]))


def is_public(address: str) -> bool:
    """Whether an address is one of the internet at large, also looked at through what IPv6 wraps IPv4 in."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _connect(where: tuple[socket.AddressFamily, tuple[str, int]]) -> socket.socket:
    sock = socket.socket(where[0], socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_SECONDS)
        sock.connect(where[1])
    except BaseException:
        sock.close()
        raise
    sock.settimeout(WHOLE_SECONDS)
    return sock


@contextmanager
def _ended_after(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Hang up after `seconds`, however slowly the other side drips: a socket's own timeout starts anew at each byte."""

    def hang_up() -> None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    # TLS takes the descriptor over; a duplicate of it ends the same connection.
    keeper, sock = sock, sock.dup()
    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        sock.close()
        with suppress(OSError):
            keeper.close()
