"""The page's requests over HTTP, and the page itself in a headless browser where there is one."""

import base64
import http.client
import io
import json
import threading

import numpy as np
import pytest
import webdriver
from coigan.data.images import write_png
from coigan.gui import Session, make_server
from PIL import Image

from gan_plugin.data.masks import read_mask
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


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

    send.port, send.session = server.server_address[1], session
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


def test_colours_stay_in_their_order(tmp_path):
    """COIGAN's page gave BGR for RGB."""
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[...] = (10, 20, 30)
    write_png(tmp_path / "colour.png", colours)
    seen = []

    class Echo:
        classes = ("scratch",)

        def paint(self, image, masks, seed, strength):
            seen.append(image[0, 0].tolist())
            return image

    painted = Session(Echo(), [tmp_path / "colour.png"], tmp_path).infer({"masks": [mask_png((0, 0))]})
    assert seen == [[10, 20, 30]] and decode(painted)[0, 0].tolist() == [10, 20, 30]


def test_next_and_save(page, tmp_path):
    assert json.loads(page("POST", "/api/next", {})[1])["name"] == "b.png"
    request = {"masks": [mask_png((0, 0)), mask_png()], "seed": 7}
    saved = json.loads(page("POST", "/api/save", request)[1])
    folder = tmp_path / "saved"
    assert saved["files"] == sorted(path.name for path in folder.iterdir()) and len(saved["files"]) == 5
    assert read_rgb(folder / "sample_00000_output.png")[0, 0].tolist() == [17, 0, 100]
    assert read_rgb(folder / "sample_00000_input.png").max() == 60
    assert read_mask(folder / "sample_00000_mask_0.png").sum() == 1
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


@pytest.mark.skipif(webdriver.installed() is None, reason="needs chromium and chromedriver")
def test_masks_are_painted_with_the_mouse(page, tmp_path):
    """Two classes with the mouse, a result, another seed, eraser, undo, and what is saved, in a headless browser."""
    write_png(tmp_path / "a.png", np.full((60, 80, 3), 50, np.uint8))
    page.session.next_image(), page.session.next_image()
    alpha = "return layers[{}].getContext('2d').getImageData({}, {}, 1, 1).data[3]"
    pixel = "return [...by('result').getContext('2d').getImageData({}, {}, 1, 1).data].slice(0, 3)"
    red = "return by('result').getContext('2d').getImageData({}, {}, 1, 1).data[0]"
    with webdriver.open_browser(tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait_for("return document.body.dataset.ready == 'yes'")
        assert browser.text("#name") == "a.png" and "scratch" in browser.text("#classes")
        box = browser.run("return by('stack').getBoundingClientRect()")
        assert box["bottom"] <= browser.run("return innerHeight"), "the picture does not fit the window"

        def stroke(*pixels, **options):
            zoom = box["width"] / 80
            browser.drag(*((box["x"] + x * zoom, box["y"] + y * zoom) for x, y in pixels), **options)

        browser.run("by('radius').value = 3; brush(0)")
        stroke((20, 20), (40, 20))
        browser.press("2")
        stroke((40, 45), (60, 45))
        (tmp_path / "page.png").write_bytes(browser.screenshot())
        assert [browser.run(alpha.format(layer, 30, 20)) for layer in (0, 1)] == [255, 0]
        assert [browser.run(alpha.format(layer, 50, 45)) for layer in (0, 1)] == [0, 255]
        # the result follows the mouse, without a word
        browser.wait_for(red.format(50, 45) + " == 20")
        assert browser.run(pixel.format(30, 20)) == [10, 0, 100] and browser.run(pixel.format(5, 5)) == [50] * 3
        browser.click("#again")
        browser.wait_for(red.format(50, 45) + " == 21")
        stroke((60, 45), (62, 45), button=2)
        browser.wait_for(red.format(60, 45) + " == 50")
        stroke((10, 50), (11, 50))
        browser.wait_for(red.format(10, 50) + " == 21")
        browser.press("z")
        browser.wait_for(red.format(10, 50) + " == 50")
        browser.press("s")
        browser.wait_for("return by('status').textContent.startsWith('Saved 5 files')")
        (tmp_path / "page.png").write_bytes(browser.screenshot())
    masks = [read_mask(tmp_path / f"saved/sample_00000_mask_{number}.png") for number in (0, 1)]
    rows, columns = np.nonzero(masks[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((17, 22, 17, 42), abs=1)
    assert masks[1][45, 50] and not masks[1][45, 61] and not masks[1][50, 10] and not (masks[0] & masks[1]).any()
    assert read_rgb(tmp_path / "saved/sample_00000_output.png")[20, 30].tolist() == [11, 0, 100]
    assert json.loads((tmp_path / "saved/sample_00000.json").read_text())["seed"] == 1
