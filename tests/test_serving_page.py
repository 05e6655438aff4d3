"""The page of a server, in a browser: it shows what is seen on a picture, and loads nothing from elsewhere."""

import base64
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.files import read_json, write_json
from pipeline.package.writer import write_sums
from tests import detection_package
from tests.test_serving_pictures import PICTURES, turned
from workbench.serving_helpers import NAME, ServerProcess, make_package, serving

BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
VERSION = "2.1.0<b>"


class Browser:
    """A browser that is driven through a pair of pipes."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER is not None
        told, tell = os.pipe()
        hear, heard = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]
        script = f"exec 3<&{told} 4>&{heard}; exec {BROWSER} {' '.join(options)} about:blank"
        self.process = subprocess.Popen(
            ["bash", "-c", script], pass_fds=(told, heard), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(told)
        os.close(heard)
        self.tell, self.hear = os.fdopen(tell, "wb", 0), os.fdopen(hear, "rb")
        self.count, self.rest = 0, b""
        self.events: list[dict[str, Any]] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(page["targetId"] for page in pages if page["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    session: str | None = None

    def call(self, method: str, **parameters: Any) -> Any:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self.tell.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> Any:
        while b"\0" not in self.rest:
            found = self.hear.read1(65536)
            assert found, "the browser ended"
            self.rest += found
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=1000, height=1100, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def evaluate(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def choose(self, path: Path) -> str:
        """Choose the file ``path`` and return what the page says once it has an answer."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(path)])
        wait = "for (;;) { const said = document.getElementById('said').textContent;"
        wait += f"if (said.startsWith({json.dumps(path.name)}) && !said.endsWith('...')) return said;"
        return str(self.evaluate(f"(async () => {{ {wait} await new Promise(go => setTimeout(go, 20)); }} }})()"))

    def faults(self) -> list[Any]:
        """Return what the browser complained of, beside answers that are refusals."""
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        entries = [event for event in self.events if event["method"] in kinds]
        return [entry for entry in entries if "status of 400" not in json.dumps(entry)]

    def asked(self) -> set[str]:
        """Return the URLs that were loaded."""
        kind = "Network.requestWillBeSent"
        return {event["params"]["request"]["url"] for event in self.events if event["method"] == kind}

    def close(self) -> None:
        self.tell.close()
        self.process.kill()
        self.process.wait(10)
        self.hear.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip("no Chromium on this host")
    running = Browser(tmp_path / "profile")
    try:
        yield running
    finally:
        running.close()


def state_version(package: Path) -> Path:
    manifest = read_json(package / "manifest.json")
    write_json(package / "manifest.json", {**manifest, "about": {"version": VERSION, "commit": None}})
    write_sums(package)
    return package


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    package = make_package(tmp_path_factory.mktemp("labels") / "package", more=("fp16",))
    with serving(state_version(package), "--precision", "fp32", "--precision", "fp16") as running:
        yield running


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(detection_package.make_package(tmp_path_factory.mktemp("boxes") / "package")) as running:
        yield running


def test_the_page_may_load_nothing_from_elsewhere(labels: ServerProcess) -> None:
    with urllib.request.urlopen(f"http://{labels.http}/", timeout=10) as response:
        headers, text = response.headers, response.read().decode()
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "http://" not in text
    assert "https://" not in text
    assert "version 2.1.0&lt;b&gt;" in text
    for path in ("/predict", f"<option>{NAME}-fp16</option>", "/v2/models/MODEL/infer", "/metrics"):
        assert path in text


def test_what_is_served_says_which_version_it_is(labels: ServerProcess) -> None:
    assert labels.ask("/v2")[1]["package"] == {"name": NAME, "version": VERSION}
    assert labels.ask(f"/v2/models/{NAME}/config")[1]["parameters"]["package_version"] == {"string_value": VERSION}
    assert labels.wait_for("package")["facts"] == {"name": NAME, "version": VERSION}


def test_labels_of_a_chosen_file(labels: ServerProcess, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "one & <two>.png"
    path.write_bytes(PICTURES["png"])
    browser.open(f"http://{labels.http}/")
    assert " 3 found, answered in " in browser.choose(path)
    best = labels.ask("/predict", PICTURES["png"])[1]["labels"][0]["label"]
    assert browser.evaluate("document.querySelector('#answer td').textContent") == best
    assert browser.evaluate("[canvas.width, canvas.height, canvas.hidden]") == [30, 20, False]
    change = "at('model').selectedIndex = 1; at('top').value = 5; at('top').dispatchEvent(new Event('change'));"
    browser.evaluate(change)
    until = "new Promise(go => { const look = () => document.querySelectorAll('#answer tbody tr').length === 5 ? go()"
    browser.evaluate(f"{until} : setTimeout(look, 20); look(); }})")
    labels.wait_for("request", model=f"{NAME}-fp16", status=200)
    path = tmp_path / "no picture.png"
    path.write_bytes(b"no picture")
    assert "the picture starts with b'no picture'" in browser.choose(path)
    assert browser.evaluate("[said.className, canvas.hidden, answer.childElementCount]") == ["bad", True, 0]
    assert browser.faults() == []
    own = f"http://{labels.http}/"
    assert {url for url in browser.asked() if not url.startswith((own, "data:"))} == set()


PHOTOS = {"large": PICTURES["large"], "turned": turned(400, 200)}


@pytest.mark.parametrize("kind", PHOTOS)
def test_boxes_are_drawn_where_they_are(boxes: ServerProcess, browser: Browser, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTOS[kind])
    browser.open(f"http://{boxes.http}/")
    assert " 3 found" in browser.choose(path)
    answer = boxes.ask("/predict", PHOTOS[kind])[1]
    shot = browser.evaluate("canvas.toDataURL('image/png')").partition(",")[2]
    (tmp_path / "shown.png").write_bytes(base64.b64decode(shot))
    with Image.open(tmp_path / "shown.png") as shown:
        pixels = np.asarray(shown.convert("RGB")).astype(int)
    scale = pixels.shape[1] / answer["width"]
    assert pixels.shape[0] == round(answer["height"] * scale)
    left, top, right, bottom = (value * scale for value in answer["detections"][0]["box"])
    places = {(bottom - 0.5, (left + right) / 2), ((top + bottom) / 2, right - 0.5)}
    for row, column in places:  # soft pale colours everywhere else
        found = pixels[min(int(row), pixels.shape[0] - 1), min(int(column), pixels.shape[1] - 1)]
        assert found.max() - found.min() > 150, (row, column, found)
    if (folder := os.environ.get("FMKT_SCREENSHOTS")) is not None:
        data = browser.call("Page.captureScreenshot", format="png")["data"]
        (Path(folder) / f"{kind}.png").write_bytes(base64.b64decode(data))
    assert browser.faults() == []
