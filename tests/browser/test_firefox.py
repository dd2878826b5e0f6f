"""The page in a real Firefox, driven by WebDriver BiDi, which it speaks itself."""

import json
import shutil
import socket
import subprocess
import time

import pytest

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = pytest.mark.skipif(FIREFOX is None, reason="there is no Firefox")
client = pytest.importorskip("websockets.sync.client", reason="pip install websockets")


class Firefox:
    """One tab."""

    def __init__(self, port):
        for _ in range(120):
            try:
                self.socket = client.connect(f"ws://127.0.0.1:{port}/session", max_size=None)
                break
            except OSError:
                time.sleep(0.5)
        self.number, self.events = 0, []
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        tree = self.call("browsingContext.getTree")
        self.context = tree["contexts"][0]["context"]

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.number:
                assert answer["type"] == "success", answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url):
        self.call("browsingContext.navigate", context=self.context, url=url, wait="complete")
        self.wait("document.documentElement.dataset.paths === 'true'")

    def value(self, expression):
        answer = self.call(
            "script.evaluate",
            expression=expression,
            target={"context": self.context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def wait(self, expression):
        for _ in range(150):
            if self.value(expression):
                return
            time.sleep(0.1)
        raise AssertionError(f"not within 15 s: {expression}")


@pytest.fixture
def firefox(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [FIREFOX, "--headless", "--no-remote", "--profile", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--remote-debugging-port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Firefox(port)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_opens_edits_and_keeps_edits(digits_page, firefox):
    url = digits_page.index.resolve().as_uri()
    firefox.open(url)
    assert firefox.value("document.querySelectorAll('.card').length") == 12
    firefox.value("UIC.edit({ do: 'name', class: 1, name: '<b>kept' }).then(() => 1)")
    firefox.open(url)
    assert firefox.value(
        """document.querySelector('.card[data-class="1"] .clip').textContent"""
    ) == ("<b>kept")
    firefox.value("location.hash = '#/image/3'")
    firefox.wait("document.querySelector('.photo img')?.naturalWidth === 8")
    for address, found in (("map", "canvas.map"), ("folders", "table.confusion"), ("", ".cards")):
        firefox.value(f"location.hash = '#/{address}'")
        firefox.wait(f"document.querySelector('{found}') !== null")
    said = [e["params"] for e in firefox.events if e["method"] == "log.entryAdded"]
    assert [entry["text"] for entry in said if entry["level"] == "error"] == []
    sent = [
        e["params"]["request"]["url"]
        for e in firefox.events
        if e["method"] == "network.beforeRequestSent"
    ]
    assert [url for url in sent if not url.startswith(("file:", "data:", "blob:"))] == []
