"""A headless Chromium that is driven over its DevTools pipe, so that no driver and no package is needed."""

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]


def find_browser():
    """Return the path of a Chromium, or ``None``."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One open page. Messages are JSON, each ended by a zero byte; what arrives in between is kept in ``events``."""

    def __init__(self, write, read):
        self._write, self._read = write, read
        self._count, self._session, self.events = 0, {}, []

    def send(self, method, **parameters):
        """Return the result of a DevTools command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = json.loads(self._next())
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        message = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            if not byte:
                raise EOFError
            message += byte
        return message

    def open(self, address):
        """Open a page and wait until it is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=address)
        while self.run("document.readyState + ' ' + (location.href != 'about:blank')") != "complete true":
            pass

    def close(self):
        """End the browser."""
        self._session = {}
        self.send("Browser.close")

    def run(self, script):
        """Return the value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def press(self, key, text):
        """Press a key where the focus is."""
        self.send(
            "Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text, windowsVirtualKeyCode=ord(text)
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=ord(text))

    def screenshot(self, path, width=1280, height=None, dark=False):
        """Save what the page looks like; the whole page without a height."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        phone = width < 600
        size = {"width": width, "height": height or 900, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=height is None)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def open_page(browser, address, profile):
    """Yield a tab with the page; Chromium ends with the block."""
    from_us, to_them = os.pipe()
    from_them, to_us = os.pipe()
    command = [
        "bash",
        "-c",
        f'exec "$@" 3<&{from_us} 4>&{to_us}',
        "bash",
        browser,
        *FLAGS,
        f"--user-data-dir={profile}",
    ]
    pipes = (from_us, to_us)
    process = subprocess.Popen(command, pass_fds=pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for pipe in pipes:
        os.close(pipe)
    try:
        with os.fdopen(to_them, "wb") as write, os.fdopen(from_them, "rb") as read:
            tab = Tab(write, read)
            tab.open(address)
            yield tab
            tab.close()
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
