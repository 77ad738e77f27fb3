"""One kept connection to the queue service. One request a call: retrying is the caller's.

A ``Connection`` belongs to one thread at a time; ``cut`` alone may be called from another.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Optional
from urllib.parse import urlsplit

from .errors import GanglineError, ProtocolError, Refused, Unauthorized, Unavailable

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""How long an answer may take beyond the time for which it was asked to be held."""
STREAM_SECONDS = 300.0

Body = Optional[bytes]


class Address:
    """Where the service is, checked."""

    def __init__(self, url: str, token: Optional[str] = None) -> None:
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError:
            port, host, parts = None, None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is no address of the form http://HOST:PORT")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("the token must be printable ASCII characters")
        self.url = url.rstrip("/")
        self.token = token or None
        self.secure = parts.scheme == "https"
        self.host = host
        self.port = port or (443 if self.secure else 80)
        self.prefix = parts.path.rstrip("/")


class Connection:
    """A connection that opens itself anew when it has to."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._http: Optional[http.client.HTTPConnection] = None

    def call(self, method: str, path: str, body: Body = None, *, hold: float = 0.0,
             headers: Optional[dict[str, str]] = None, timeout: Optional[float] = None) -> str:
        """Sends one request and returns the text of its answer.

        Raises a ``GanglineError``; only ``Unavailable`` is worth another try.
        """
        response = self.open(method, path, body, hold=hold, headers=headers, timeout=timeout)
        try:
            return response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(_text_of(error)) from error

    def open(self, method: str, path: str, body: Body = None, *, hold: float = 0.0,
             headers: Optional[dict[str, str]] = None,
             timeout: Optional[float] = None) -> http.client.HTTPResponse:
        """Sends one request and returns its answer with the body unread."""
        wanted = {"content-type": "application/json", **(headers or {})}
        if self.address.token:
            wanted["authorization"] = f"Bearer {self.address.token}"
        timeout = hold + ANSWER_SECONDS if timeout is None else timeout
        reused = self._http is not None
        while True:
            try:
                response = self._send(method, self.address.prefix + path, body, wanted, timeout)
                break
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept connection that the service has closed meanwhile; every call may be sent
                # again.
                stale = isinstance(error, (ConnectionError, http.client.BadStatusLine))
                if reused and stale:
                    reused = False
                    continue
                raise Unavailable(_text_of(error)) from error
            except BaseException:
                # A request that was cut short: nothing else can follow it on its connection.
                self.close()
                raise
        if 200 <= response.status < 300:
            return response
        try:
            text = response.read()
        except (OSError, http.client.HTTPException):
            text = b""
        if response.will_close:
            self.close()
        raise _error_of(response, text)

    def _send(self, method: str, path: str, body: Body, headers: dict[str, str],
              timeout: float) -> http.client.HTTPResponse:
        if self._http is None:
            try:
                self._http = self._connect(timeout)
            except OSError as error:
                raise Unavailable(_text_of(error), arrived=False) from error
        connection = self._http
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # The service may have answered before the end of the body, and says why.
            pass
        return connection.getresponse()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        address = self.address
        connect = min(CONNECT_SECONDS, timeout)
        made: http.client.HTTPConnection
        if address.secure:
            import ssl  # Here, since it is slow to load and seldom needed.

            made = http.client.HTTPSConnection(address.host, address.port, timeout=connect,
                                               context=ssl.create_default_context())
        else:
            made = http.client.HTTPConnection(address.host, address.port, timeout=connect)
        made.connect()
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sock.settimeout(timeout)
        return made

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        connection, self._http = self._http, None
        if connection is not None:
            connection.close()

    def cut(self) -> None:
        """Ends a call that another thread waits for."""
        connection = self._http
        sock = connection.sock if connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _text_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _error_of(response: http.client.HTTPResponse, text: bytes) -> GanglineError:
    status = response.status
    try:
        problem: Any = json.loads(text)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        if status >= 500 or status == 429:
            return Unavailable(f"HTTP status {status}", _retry_after(response),
                               arrived=status != 429)
        return ProtocolError(f"HTTP status {status}")
    if code in ("unavailable", "internal", "request_timeout") or status in (429, 503):
        return Unavailable(detail, _retry_after(response), arrived=status != 429)
    kind = Unauthorized if code in ("unauthenticated", "forbidden") else Refused
    return kind(status, code, detail, problem.get("field"), problem.get("certificate"))


def _retry_after(response: http.client.HTTPResponse) -> Optional[float]:
    text = response.getheader("retry-after", "")
    return min(float(text), 3_600.0) if text and text.isdigit() else None
