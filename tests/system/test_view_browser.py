"""The viewer in a real browser: headless Chromium, driven over its DevTools pipe."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"),
]


class Browser:
    """One page of a browser. Messages are JSON, each ended by a zero byte."""

    def __init__(self, profile: Path, size=(1400, 900)):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def arrange():
            # Chromium reads from 3 and writes to 4; neither end may be overwritten before it is moved.
            low, high = os.dup(to_browser), os.dup(from_browser)
            os.dup2(low, 3)
            os.dup2(high, 4)

        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        self._process = subprocess.Popen(
            command, preexec_fn=arrange, close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest, self._session = 0, b"", None
        self.said: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        """Keep what the page complains of, and where it asks for things."""
        given = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.said.append(given["exceptionDetails"]["exception"].get("description", "an exception"))
        elif event.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.said.append(given["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            address = given["request"]["url"]
            if not address.startswith(("http://127.0.0.1:", "data:", "blob:")):
                self.said.append(f"asked for {address}")

    def _receive(self):
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def run(self, code):
        answer = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code, seconds=60):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            value = self.run(
                f"(() => {{ try {{ return {code} }} catch {{ return null }} }})()"
            )  # not loaded yet
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {code}; the page says {self.said}")

    def key(self, key, code=None):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **text)

    def click(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def close(self):
        with suppress(OSError, AssertionError):
            self.send("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._write)
        os.close(self._read)


@pytest.fixture
def address(finished_views):
    """Serve two results of one image, and return where."""
    code = "from cellseg.runtime.cli.view import main; main()"
    command = [sys.executable, "-c", code, *map(str, finished_views), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def browser(tmp_path):
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def place_of(browser, x, y):
    """Return where a pixel of the image is on the screen."""
    code = f"""(() => {{
        const box = document.querySelector('.osd').getBoundingClientRect();
        const view = new URLSearchParams(location.hash.slice(1));
        const [X, Y, zoom] = ['x', 'y', 'zoom'].map((name) => Number(view.get(name)));
        return [box.x + box.width / 2 + ({x} - X) * zoom, box.y + box.height / 2 + ({y} - Y) * zoom];
    }})()"""
    return browser.run(code)


def test_a_walk_through_the_viewer(address, browser, tmp_path):
    shown = "document.getElementById('shown').textContent"
    # A link restores the view.
    browser.send("Page.navigate", url=f"{address}#x=400&y=120&zoom=4&fill=0.4&by=area")
    browser.wait(f"{shown} === '6 cells'")
    browser.wait("new URLSearchParams(location.hash.slice(1)).get('zoom') === '4'")
    assert browser.run("document.getElementById('by').value") == "area"
    assert not browser.run("document.getElementById('scale').hidden")

    # A click shows what was measured.
    browser.wait("document.querySelectorAll('.osd canvas').length > 0")
    browser.click(*place_of(browser, 400, 120))
    browser.wait("document.getElementById('cell').textContent.includes('area')")

    # Keys alone reach everything: the least certain cell, outlines, sliders.
    browser.key("n")
    browser.wait("document.getElementById('rank').textContent === '1 of 6'")
    browser.key("h")
    browser.wait("!document.getElementById('cells').checked")
    browser.run("document.getElementById('smallest').focus()")
    for _ in range(60):
        browser.key("ArrowRight", "ArrowRight")
    browser.wait(f"/of 6 cells/.test({shown})")
    reachable = browser.run(
        "[...document.querySelectorAll('button, input, select')]"
        ".every((e) => e.tabIndex >= 0 && (e.labels?.length || e.textContent.trim()))"
    )
    assert reachable

    # Two results, side by side and one over the other.
    for layout, panes in (("side", 2), ("over", 1)):
        browser.run(
            f"(() => {{ const s = document.getElementById('layout'); s.value = '{layout}';"
            " s.dispatchEvent(new Event('change')); })()"
        )
        browser.wait(f"document.querySelectorAll('.pane').length === {panes}")

    # A field is corrected and saved.
    browser.send("Page.navigate", url="about:blank")
    browser.send("Page.navigate", url=f"{address}#x=400&y=120&zoom=4")
    browser.wait(f"{shown} === '6 cells'")
    browser.wait("new URLSearchParams(location.hash.slice(1)).get('zoom') === '4'")
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.getElementById('mark').click()")
    browser.click(*place_of(browser, 400, 120))
    browser.wait("!document.getElementById('delete').disabled")
    browser.key("d")
    browser.wait("document.getElementById('corrected').textContent.includes('1 deleted')")
    browser.key("c")
    for x, y in [(420, 160), (440, 160), (440, 180)]:
        browser.click(*place_of(browser, x, y))
        time.sleep(0.5)  # two clicks close together would be a double click
    browser.key("c")
    browser.wait("document.getElementById('corrected').textContent.includes('1 drawn')")
    browser.run("document.getElementById('save').click()")
    saved = []
    ends = time.monotonic() + 30
    while not saved and time.monotonic() < ends:
        saved = list(tmp_path.glob("*.geojson"))
        time.sleep(0.1)
    features = json.loads(saved[0].read_text())["features"]
    assert [feature["properties"]["objectType"] for feature in features] == ["annotation", "detection"]
    assert not browser.said
