"""The page and its requests, with the standard library's server."""

import json
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from coigan.gui.session import Session
from gan_plugin.errors import UserError, as_user_error, explanation

_LARGEST = 64 << 20


class _Handler(BaseHTTPRequestHandler):
    """GET / /api/info /api/image, POST /api/next /api/infer /api/save."""

    protocol_version = "HTTP/1.1"

    def __init__(self, session: Session, *arguments: Any) -> None:
        self._session = session
        super().__init__(*arguments)

    def do_GET(self) -> None:  # noqa: N802
        match self.path.split("?")[0]:
            case "/":
                page = files("coigan.gui").joinpath("page.html").read_bytes()
                self._send(page, "text/html; charset=utf-8")
            case "/api/info":
                self._send_json(self._session.info())
            case "/api/image":
                self._send(self._session.image(), "image/png")
            case _:
                self._send_json({"error": "There is no such page."}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:  # noqa: N802
        # A page of another site may send forms here, but neither this type of content nor its own origin's name.
        origin = self.headers.get("Origin")
        if self.headers.get_content_type() != "application/json" or origin not in (None, f"http://{self._host()}"):
            self.close_connection = True
            self._send_json({"error": "Only this page's own requests are answered."}, HTTPStatus.FORBIDDEN)
            return
        try:
            request = self._read_json()
            match self.path:
                case "/api/next":
                    self._send_json(self._session.next_image())
                case "/api/infer":
                    self._send(self._session.infer(request), "image/png")
                case "/api/save":
                    self._send_json(self._session.save(request))
                case _:
                    self._send_json({"error": "There is no such page."}, HTTPStatus.NOT_FOUND)
        except (UserError, OSError) as error:
            sentence = explanation(error) or f"{type(error).__name__}: {error}"
            self._send_json({"error": sentence}, HTTPStatus.BAD_REQUEST)

    def _host(self) -> str:
        return self.headers.get("Host", "")

    def _read_json(self) -> dict[str, Any]:
        try:
            size = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            size = -1
        if not 0 <= size <= _LARGEST:
            self.close_connection = True
            raise UserError("The request is too large.")
        try:
            content = json.loads(self.rfile.read(size) or b"{}")
        except ValueError as error:
            raise UserError("The request is no JSON.") from error
        if not isinstance(content, dict):
            raise UserError("The request is no JSON object.")
        return content

    def _send_json(self, content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on the console."""


def make_server(session: Session, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server of the page, to be started by `serve_forever`.

    Args:
        session: what the page works on.
        port: 0 for any that is free; `server_address` tells which.
        host: this machine only, by default.

    Raises:
        UserError: the port is taken.
    """
    with as_user_error(f"Port {port} of {host} cannot be opened", "choose another with --port", OSError, OverflowError):
        return ThreadingHTTPServer((host, port), partial(_Handler, session))
