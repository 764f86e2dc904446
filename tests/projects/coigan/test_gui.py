"""The page's requests over HTTP, and the page itself in a headless browser where there is one."""

import base64
import http.client
import io
import json
import shutil
import subprocess
import threading

import numpy as np
import pytest
from coigan.data.images import read_grey, read_rgb, write_png
from coigan.gui import Session, make_server
from PIL import Image

from gan_plugin.errors import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Painter:
    """Paints the masks' number times ten plus the seed, as red."""

    classes = ("scratch", "hole")

    def paint(self, image, masks, seed, strength):
        result = image.copy()
        for number, mask in enumerate(masks, start=1):
            result[mask] = (10 * number + seed, 0, int(100 * strength))
        return result


@pytest.fixture
def page(tmp_path):
    """A function that sends a request to a running page: (method, path, body, headers) -> (status, content)."""
    for name, value in (("a.png", 50), ("b.png", 60)):
        write_png(tmp_path / name, np.full((6, 8, 3), value, np.uint8))
    session = Session(Painter(), [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "saved")
    server = make_server(session, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()

    def send(method, path, body=None, **headers):
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if body is not None and "Content-Type" not in headers:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        result = answer.status, answer.read()
        connection.close()
        return result

    send.port = server.server_address[1]
    yield send
    server.shutdown()
    server.server_close()
    thread.join()


def mask_png(*places, alpha=False):
    pixels = np.zeros((6, 8), np.uint8)
    for place in places:
        pixels[place] = 255
    image = Image.fromarray(pixels)
    if alpha:
        image = Image.merge("RGBA", [Image.new("L", (8, 6), 9)] * 3 + [image])
    content = io.BytesIO()
    image.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def decode(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_what_is_painted_comes_back(page):
    status, content = page("GET", "/")
    assert status == 200 and b"Paint defects" in content
    info = json.loads(page("GET", "/api/info")[1])
    assert info == {"classes": ["scratch", "hole"], "width": 8, "height": 6, "name": "a.png"}
    assert decode(page("GET", "/api/image")[1])[0, 0].tolist() == [50, 50, 50]
    masks = ["data:image/png;base64," + mask_png((1, 2), alpha=True), mask_png((4, 5))]
    status, content = page("POST", "/api/infer", {"masks": masks, "seed": 3, "strength": 0.5})
    painted = decode(content)
    assert status == 200 and painted[1, 2].tolist() == [13, 0, 50] and painted[4, 5].tolist() == [23, 0, 50]
    assert painted[0, 0].tolist() == [50, 50, 50]


def test_next_and_save(page, tmp_path):
    assert json.loads(page("POST", "/api/next", {})[1])["name"] == "b.png"
    request = {"masks": [mask_png((0, 0)), mask_png()], "seed": 7}
    saved = json.loads(page("POST", "/api/save", request)[1])
    folder = tmp_path / "saved"
    assert saved["files"] == sorted(path.name for path in folder.iterdir()) and len(saved["files"]) == 5
    assert read_rgb(folder / "sample_00000_output.png")[0, 0].tolist() == [17, 0, 100]
    assert read_rgb(folder / "sample_00000_input.png").max() == 60
    assert read_grey(folder / "sample_00000_mask_0.png").sum() == 255
    facts = json.loads((folder / "sample_00000.json").read_text())
    assert facts["seed"] == 7 and facts["synthetic"] is True and facts["base"] == "b.png"
    assert "sample_00001.json" in json.loads(page("POST", "/api/save", request)[1])["files"]


@pytest.mark.parametrize(
    "request_, said",
    [
        ({"masks": []}, "2 masks"),
        ({"masks": ["x", "y"]}, "no PNG"),
        ({"masks": [mask_png()] * 2, "seed": -1}, "seed must be 0"),
        ({"masks": [mask_png()] * 2, "strength": "much"}, "must be numbers"),
        ([1], "no JSON object"),
        (b"{", "no JSON"),
    ],
)
def test_wrong_requests_get_a_sentence(page, request_, said):
    status, content = page("POST", "/api/infer", request_)
    assert status == 400 and said in json.loads(content)["error"]


def test_a_mask_of_another_size_is_refused(page):
    small = io.BytesIO()
    Image.new("L", (3, 3)).save(small, "PNG")
    masks = [base64.b64encode(small.getvalue()).decode()] * 2
    assert "3x3 pixels, the image 8x6" in page("POST", "/api/infer", {"masks": masks})[1].decode()


def test_other_sites_are_not_answered(page, tmp_path):
    request = {"masks": [mask_png()] * 2}
    assert page("POST", "/api/save", request, Origin="http://elsewhere.example")[0] == 403
    assert page("POST", "/api/save", json.dumps(request).encode(), **{"Content-Type": "text/plain"})[0] == 403
    assert not (tmp_path / "saved").exists()
    assert page("GET", "/etc/passwd")[0] == 404 and page("POST", "/api/other", {})[0] == 404


def test_a_taken_port_and_no_image_are_refused(page, tmp_path):
    with pytest.raises(UserError, match="choose another with --port"):
        make_server(None, page.port)
    with pytest.raises(UserError, match="no base image"):
        Session(Painter(), [], tmp_path)


def test_the_page_in_a_browser(page, tmp_path):
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs Chromium or Chrome")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    options.append(f"--user-data-dir={tmp_path / 'profile'}")
    address = f"http://127.0.0.1:{page.port}/"
    shown = subprocess.run([browser, *options, address], capture_output=True, text=True, timeout=60).stdout
    assert 'data-ready="yes"' in shown and "scratch" in shown and "a.png" in shown
