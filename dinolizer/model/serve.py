"""A page on this machine to drop a picture on; what comes back is its report. It is built on
Tornado, which Jupyter runs on, and which reads forms and bounds their size itself."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from dinolizer.errors import InputError, printable, say
from dinolizer.model.files import localize_bytes
from dinolizer.model.localizer import Localizer
from dinolizer.model.report import render, report_page

LARGEST = 100 * 2**20
"""Bytes of a picture."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Page(RequestHandler):
    """The page, and the answer to what is dropped on it; one picture is examined at a time."""

    def initialize(self, localizer: Localizer, names: tuple[str, ...]) -> None:
        self.localizer, self.names = localizer, names

    def prepare(self) -> None:
        # Another site's page may neither ask through a name that it binds to this machine, nor send
        # a form. Browsers say truly whom they ask, and for whom.
        host, origin = self.request.host, self.request.headers.get("Origin")
        known = not self.names or host.rsplit(":", 1)[0] in self.names
        if not known or origin not in (None, f"http://{host}"):
            self.set_status(403)
            self.finish("This page answers only to itself.\n")

    def get(self) -> None:
        self.show()

    async def post(self) -> None:
        files = self.request.files.get("picture", [])
        if len(files) != 1 or not files[0]["body"]:
            self.show(f"{len(files)} pictures came, or an empty one; choose one picture.")
            return
        name, body = files[0]["filename"], files[0]["body"]

        def answer() -> str:
            return report_page(localize_bytes(self.localizer, name, body), back=True)

        try:
            self.finish(await asyncio.wrap_future(self.settings["queue"].submit(answer)))
        except InputError as error:
            self.show(printable(str(error)))

    def show(self, error: str = "") -> None:
        """Send the page, with a sentence on what came and cannot be examined."""
        self.set_status(400 if error else 200)
        spec = self.localizer.backbone.spec
        self.finish(render("serve.html", title="DinoLizer", error=error, spec=spec, most=LARGEST))


def listen(localizer: Localizer, host: str, port: int) -> str:
    """Start to answer in the running loop, at a port that is free where it is 0; return the page's
    address. Where ``host`` is this machine's own, requests by another name are refused."""
    try:
        sockets = bind_sockets(port, host)
    except (OSError, OverflowError) as error:
        at = f"{host}, port {port} ({error})"
        raise InputError(f"No page can be served at {at}; give another.") from None
    names = LOOPBACK if host in LOOPBACK else ()
    values = {"localizer": localizer, "names": names}
    application = Application([("/", Page, values)], queue=ThreadPoolExecutor(1))
    room = LARGEST + 2**20  # for the form around the picture
    HTTPServer(application, max_body_size=room, max_buffer_size=room).add_sockets(sockets)
    return f"http://{host}:{sockets[0].getsockname()[1]}/"


async def serve(localizer: Localizer, host: str, port: int) -> None:
    """Answer until the program is ended."""
    say(f"Open {listen(localizer, host, port)} in a browser; nothing leaves this machine. Ctrl-C.")
    await asyncio.Event().wait()
