"""The page in a browser: a dropped photograph is shown with its heat map, score, label and regions."""

import base64
import time
from contextlib import ExitStack

import pytest
from anomalib_lamp_runtime.drift import Drift
from browser import find_browser, open_page
from fakes import FakeInspector
from test_server import png, serving

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no chromium here; on Debian: apt install chromium")
DROP = """
(() => {{
  const bytes = Uint8Array.from(atob("{data}"), character => character.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "{name}"));
  document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: files, cancelable: true }}));
}})()
"""


def drop(tab, content, name):
    tab.run(DROP.format(data=base64.b64encode(content).decode(), name=name))
    end = time.monotonic() + 10
    while tab.run("document.body.classList.contains('busy')"):
        assert time.monotonic() < end


def text(tab, name):
    """Return the text of an element, empty if it is not shown."""
    return tab.run(
        f"document.getElementById('{name}').checkVisibility() ? document.getElementById('{name}').innerText : ''"
    )


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end


@pytest.fixture
def tab(tmp_path):
    """The page of a server that finds drift in every photograph."""
    drift = Drift({"score": [0.1, 0.2] * 20}, window=1, rate=0.05)
    described = {"model": "a model", "backend": "onnx"}
    with ExitStack() as stack:
        server = stack.enter_context(serving(FakeInspector(), drift=drift, describe=described))
        address = "http://{}:{}/".format(*server.server_address)
        yield stack.enter_context(open_page(find_browser(), address, tmp_path))


def test_dropped_photograph_is_shown_beside_its_map(tab):
    drop(tab, png(40000, size=(320, 240)), "<b>part</b>.png")
    assert text(tab, "label") == "Anomalous"
    assert text(tab, "numbers").startswith("Score 0.610, threshold 0.500 · raw score 6.104 · brightness 1.221")
    assert text(tab, "name") == text(tab, "of-photograph") == "<b>part</b>.png"
    assert text(tab, "regions").split("\n")[-1].split() == ["0.900", "2", "3", "6", "6"]
    for picture in ("photograph", "map"):
        image = f"document.getElementById('{picture}')"
        assert tab.run(f"{image}.decode().then(() => [{image}.naturalWidth, {image}.naturalHeight])") == [320, 240]
    wait_for(lambda: text(tab, "model") == "a model · onnx")
    wait_for(lambda: text(tab, "drift") == "Drift: the last parts differ from the normal images in score.")


def test_each_photograph_replaces_what_was_shown_before(tab):
    drop(tab, png(40000), "part.png")
    drop(tab, b"no photograph", "letter.txt")
    assert text(tab, "error").startswith("Expected a photograph (BMP, JPEG, PNG, PPM, TIFF or WebP), got 13 bytes")
    assert text(tab, "label") == ""
    drop(tab, png(3), "fine.png")
    assert (text(tab, "label"), text(tab, "error"), text(tab, "regions")) == ("Normal", "", "")
    drop(tab, png(60000, kind="TIFF"), "other.tif")
    wait_for(lambda: text(tab, "of-photograph") == "other.tif (this browser does not show its format)")
    assert tab.run("document.getElementById('map').decode().then(() => true)")


def test_page_asks_only_its_own_service_and_its_policy_blocks_nothing(tab):
    drop(tab, png(40000), "part.png")
    tab.run("document.getElementById('map').decode()")
    sent = [event["params"]["request"]["url"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]
    here = tab.run("location.href")
    assert {here, f"{here}health", f"{here}inspect?heat_map=1"} <= set(sent)
    assert all(address.startswith((here, "blob:", "data:")) for address in sent)
    assert [event for event in tab.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []
