"""A headless Chromium, driven over WebDriver's own HTTP protocol (W3C): no package is needed but `requests`."""

import base64
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import requests

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference to an element
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


def installed():
    """Paths of the browser and its driver, or None."""
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def open_browser(profile, window=(1200, 900)):
    """A Browser with a profile of its own in the folder `profile`; closed at the end."""
    browser, driver = installed()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        session = Browser(f"http://127.0.0.1:{port}")
        flags = [*_FLAGS, f"--user-data-dir={profile}", "--window-size={},{}".format(*window)]
        session.start({"browserName": "chrome", "goog:chromeOptions": {"binary": browser, "args": flags}})
        try:
            yield session
        finally:
            session.call("DELETE", "")
    finally:
        process.terminate()
        process.wait(10)


class Browser:
    """One window."""

    def __init__(self, driver):
        self._driver, self._session = driver, ""

    def start(self, capabilities):
        deadline = time.monotonic() + 20
        while True:
            try:
                if requests.get(f"{self._driver}/status", timeout=5).json()["value"]["ready"]:
                    break
            except requests.ConnectionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
        body = {"capabilities": {"alwaysMatch": capabilities}}
        answer = requests.post(f"{self._driver}/session", json=body, timeout=60).json()["value"]
        self._session = f"{self._driver}/session/{answer['sessionId']}"

    def call(self, method, path, body=None):
        """The value that the driver answers with."""
        json = {} if body is None and method == "POST" else body
        answer = requests.request(method, self._session + path, json=json, timeout=60).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{path}: {answer['error']}: {answer['message'].splitlines()[0]}")
        return answer

    def open(self, address):
        self.call("POST", "/url", {"url": address})

    def find(self, css):
        """A reference to an element."""
        return self.call("POST", "/element", {"using": "css selector", "value": css})

    def text(self, css):
        return self.call("GET", f"/element/{self.find(css)[ELEMENT]}/text")

    def click(self, css):
        self.call("POST", f"/element/{self.find(css)[ELEMENT]}/click")

    def press(self, keys):
        """Type `keys` on the page."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def drag(self, *places, button=0):
        """Press a mouse button at the first of `places`, (x, y) in pixels of the window, and draw along them."""
        moves = [{"type": "pointerMove", "duration": 20, "x": round(x), "y": round(y)} for x, y in places]
        moves.insert(1, {"type": "pointerDown", "button": button})
        moves.append({"type": "pointerUp", "button": button})
        self.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def run(self, script):
        """What the JavaScript function body `script` returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def wait_for(self, script, seconds=20):
        """Until `script` returns something true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"never: {script}; the page says {self.text('#status')!r}"
            time.sleep(0.05)

    def screenshot(self):
        """PNG of the window."""
        return base64.b64decode(self.call("GET", "/screenshot"))
