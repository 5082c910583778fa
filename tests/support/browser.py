"""A headless Chromium for a test, spoken to over a pipe by its DevTools protocol: no driver, no
socket, no package besides Debian's chromium.

What the page says on its console, what it throws and what it asks the network for is kept, so that
a test can say that there was nothing.
"""
import base64
import collections
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

ANSWER_DEADLINE_S = 60


def find_chromium():
    """The browser's path, or None."""
    return os.environ.get("TANDEM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        orders, self._out = os.pipe()
        self._in, answers = os.pipe()
        # The browser reads orders from descriptor 3 and answers on 4, and these may be ours now.
        # --no-sandbox: containers run as root.
        to_browser, from_browser = (fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (orders, answers))
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "chromium",
             program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             "--force-device-scale-factor=1", "--lang=en", f"--user-data-dir={self.profile.name}",
             "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        for ours in (orders, answers, to_browser, from_browser):
            os.close(ours)
        self._answers = {}
        self._arrived = threading.Condition()
        self._gone = False
        self._number = 0
        self.events = collections.deque(maxlen=100_000)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        held = b""
        while more := os.read(self._in, 1 << 20):
            *whole, held = (held + more).split(b"\0")
            with self._arrived:
                for text in whole:
                    message = json.loads(text)
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self.events.append(message)
                self._arrived.notify_all()
        with self._arrived:
            self._gone = True
            self._arrived.notify_all()

    def call(self, method, session=None, **parameters):
        """One order to the browser and what it answers."""
        self._number += 1
        number = self._number
        order = {"id": number, "method": method, "params": parameters}
        if session:
            order["sessionId"] = session
        text = json.dumps(order).encode() + b"\0"
        while text:
            text = text[os.write(self._out, text):]
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._gone or number in self._answers,
                                          ANSWER_DEADLINE_S) or number not in self._answers:
                raise RuntimeError(f"no answer to {method} in {ANSWER_DEADLINE_S} s")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait_until(self, seen, what):
        """Until what has arrived makes `seen()` true."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._gone or seen(), ANSWER_DEADLINE_S) or not seen():
                raise RuntimeError(f"{what}: not in {ANSWER_DEADLINE_S} s")

    def page(self):
        return Page(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            self.process.kill()
        self.process.wait(20)
        self._reader.join(20)
        os.close(self._out)
        os.close(self._in)
        self.profile.cleanup()


class Page:
    def __init__(self, browser):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target,
                                    flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        return self.browser.call(method, session=self.session, **parameters)

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def looks(self, width, height, theme, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, address):
        """Until the page is loaded: what is asked of a page that is about to go may get no answer."""
        before = len(self._events("Page.loadEventFired"))
        self.call("Page.navigate", url=address)
        self.browser.wait_until(lambda: len(self._events("Page.loadEventFired")) > before,
                                f"loading {address}")

    def script(self, expression):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression, deadline_s=30):
        """Until the expression is true on a drawn frame; False when it never was."""
        frame = f"new Promise(done => requestAnimationFrame(() => done(Boolean({expression}))))"
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if self.script(frame):
                return True
        return False

    def middle(self, selector, share=0.5):
        """Where the element is, scrolled into view: `share` of its width, half its height."""
        return self.script(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.left + b.width * {share}, b.top + b.height / 2]; }})"
            f"(document.querySelector({json.dumps(selector)}))")

    def point(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector):
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                      windowsVirtualKeyCode={"Tab": 9, "Escape": 27, "ArrowLeft": 37,
                                             "ArrowRight": 39}[name])

    def choose(self, selector, value):
        """As a person does: focus the select, take an option, tell the page."""
        self.script(f"(e => {{ e.focus(); e.value = {json.dumps(value)};"
                    f" e.dispatchEvent(new Event('change', {{bubbles: true}})); }})"
                    f"(document.querySelector({json.dumps(selector)}))")

    def screenshot(self, file, whole=True):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        pathlib.Path(file).write_bytes(base64.b64decode(shot["data"]))

    def _events(self, method):
        return [e["params"] for e in list(self.browser.events)
                if e.get("sessionId") == self.session and e["method"] == method]

    def complaints(self):
        """Errors and warnings on the console, exceptions, and what the browser itself logs."""
        said = [" ".join(str(a.get("value", a.get("description"))) for a in e["args"])
                for e in self._events("Runtime.consoleAPICalled")
                if e["type"] in ("error", "warning", "assert")]
        thrown = [e["exceptionDetails"].get("exception", {}).get("description",
                                                                 e["exceptionDetails"]["text"])
                  for e in self._events("Runtime.exceptionThrown")]
        logged = [f"{e['entry']['text']} {e['entry'].get('url', '')}"
                  for e in self._events("Log.entryAdded")
                  if e["entry"]["level"] in ("error", "warning")]
        return said + thrown + logged

    def addresses(self):
        """Every address that was asked for."""
        return [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
