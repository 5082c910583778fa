"""The page in a headless Chromium: two devices, a job and a chat, clicked through as a person would.

At phone and desktop width, in light and dark: nothing on the console, nothing asked of another
origin, nothing wider than the screen, nothing that moves by itself, text that can be read. Its
pictures stay in build/screenshots. The Grafana dashboard may only ask for series that there are.

TANDEM_PAGE gives the address of a server that runs already; its job and metrics are left alone.
"""
import json
import os
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support.browser import Browser, find_chromium  # noqa: E402
from support.job_events import start_lasting_job, wait_for_step  # noqa: E402
from support.tandem_server import BINARY, SOURCE, Server, fresh_home  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

SKIPPED = 77
PICTURES = BINARY.parent / "screenshots"
LOOKS = [(width, height, theme) for width, height in ((1280, 900), (390, 844))
         for theme in ("light", "dark")]
REFUSED = re.compile(r"status of 4\d\d .*/admin/assign")
failures = []

# Every visible text whose contrast with what is behind it is under WCAG 2.1 AA: 4.5, large 3.
POOR_CONTRAST = """(() => {
  const numbers = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    if (!text || !e.checkVisibility() || e.disabled || ['SCRIPT', 'OPTION'].includes(e.tagName)) continue;
    const style = getComputedStyle(e), a = light(numbers(style.color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push(text.slice(0, 30) + ' ' + ratio.toFixed(2));
  }
  return poor;
})()"""

# How much the page has moved by itself since, by the browser's own measure.
WATCH_SHIFTS = """(() => { window.shifts = []; new PerformanceObserver(list => list.getEntries()
  .filter(e => !e.hadRecentInput).forEach(e => window.shifts.push(e.value)))
  .observe({type: 'layout-shift'}); })()"""

WIDER = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right
  > document.documentElement.clientWidth + 1 && e.checkVisibility() && !e.closest('canvas'))
  .map(e => e.tagName + '#' + e.id + '.' + e.className)"""


def check(good, what):
    print(f"{'ok' if good else 'FAILED'}: {what}", flush=True)
    if not good:
        failures.append(what)


def open_page(browser, address, width, height, theme):
    page = browser.page()
    page.looks(width, height, theme, phone=width < 600)
    page.open(address + "/")
    check(page.wait_for("document.body?.dataset.leases > 0 && document.body.dataset.jobs > 0"
                        " && document.getElementById('lease-log').children.length > 0"),
          f"{width} px, {theme}: devices, jobs and what happened are shown")
    return page


def looks_right(page, where):
    """What holds of the page at any time."""
    check(page.script("document.documentElement.scrollWidth <= innerWidth"),
          f"{where}: nothing is wider than the screen {page.script(WIDER)}")
    poor = page.script(POOR_CONTRAST)
    check(not poor, f"{where}: every text has contrast {poor}")


def stays_put(page, where):
    page.script(WATCH_SHIFTS)
    before = int(page.script("document.body.dataset.asked"))
    check(page.wait_for(f"Number(document.body.dataset.asked) >= {before + 4}"),
          f"{where}: the page lives")
    moved = page.script("window.shifts.reduce((sum, v) => sum + v, 0)")
    check(moved < 0.01, f"{where}: nothing moves while it lives ({moved:.4f})")


def says_nothing_bad(page, address, where):
    said = [words for words in page.complaints() if not REFUSED.search(words)]
    check(not said, f"{where}: nothing on the console {said}")
    outside = [url for url in page.addresses() if not url.startswith((address + "/", "data:"))]
    check(not outside, f"{where}: nothing is asked of anybody else {outside}")


def chat(page):
    page.click("#text")
    page.call("Input.insertText", text="Tell me about a lighthouse.")
    page.script("document.getElementById('max-tokens').value = 24")
    page.click("#send")
    check(page.wait_for("document.body.dataset.answered === '1'", 60)
          and page.script("document.querySelector('.message.assistant p').textContent.length > 0")
          and not page.script("Boolean(document.querySelector('.message.error'))"), "a chat is answered")


def loss_curve(page):
    page.click(".job-head")
    check(page.wait_for("document.body.dataset.drawn > 0 && document.getElementById('loss').width > 0"
                        " && !document.getElementById('loss-box').hidden"), "a job's loss is drawn")


def timeline(page, device, where):
    """The newest stretch of a device's line, pointed at and reached by keys."""
    track = f'.lane[data-device="{device}"] .track'
    shown = words = ""
    for _ in range(5):  # a line that has just grown moves away from under the pointer
        x, y = page.middle(track, 0.998)
        page.point(x, y + 6)
        shown = page.wait_for("!document.getElementById('tip').hidden", 5)
        words = page.script("[...document.querySelectorAll('#tip:not([hidden]) > *')]"
                            ".map(line => line.textContent).join('\\n')")
        if words:
            break
    check(shown and device in words and "epoch" in words and len(words.splitlines()) >= 3,
          f"{where}: pointed at, a stretch says what it was and why: {words!r}")
    inside = page.script("(b => b.left >= 0 && b.right <= innerWidth)"
                         "(document.getElementById('tip').getBoundingClientRect())")
    check(inside, f"{where}: and says it on the screen")
    page.screenshot(PICTURES / f"timeline-{where.replace(' ', '-')}.png", whole=False)
    page.point(1, 1)
    page.script(f"document.querySelector('{track}').focus({{focusVisible: true}})")
    page.key("ArrowLeft")
    check(page.wait_for(f"document.querySelector('{track}').getAttribute('aria-valuetext')"
                        " && !document.getElementById('tip').hidden", 10),
          f"{where}: the arrow keys go from stretch to stretch, in words")
    page.key("Escape")
    check(page.wait_for("document.getElementById('tip').hidden", 10), f"{where}: Escape ends that")


def order(page, device, role):
    """What the page says to an order by hand."""
    page.script("delete document.body.dataset.ordered")
    page.choose(f'.lane[data-device="{device}"] .order', role)
    check(page.wait_for(f"document.body.dataset.ordered === '{role}'"), f"{device} to {role}: answered")
    return page.script("document.getElementById('order-said').textContent")


def orders_by_hand(page, devices):
    """With one device in training, the other may not leave serving, and the page says so."""
    check(page.wait_for("leases.devices.some(d => d.resident)", 60), "the job lies on a device")
    second = page.script("leases.devices.findLast(d => d.resident).device")
    first = next(device for device in devices if device != second)
    check("is ordered to serve" in order(page, first, "serve"), "a device is ordered to serve")
    check("is ordered to train" in order(page, second, "train"), "a device is ordered to train")
    check(page.wait_for(f"leases.devices.find(d => d.device === '{second}').role === 'train'", 60),
          "it trains then")
    check(page.wait_for(f"happened.of('{second}').some(e => e.kind === 'assigned')"),
          "the order is in what happened")
    said = order(page, first, "train")
    check(said.startswith("Refused: ") and len(said) > 40, f"an order that cannot be: {said!r}")
    check(page.script(f"document.querySelector('.lane[data-device=\"{first}\"] .order').value") == "serve",
          "the refused order is not shown as if it held")
    for device in (first, second):
        check("left to the policy" in order(page, device, "auto"), f"{device} is automatic again")


def click_through(address):
    PICTURES.mkdir(exist_ok=True)
    with Browser(find_chromium()) as browser:
        for width, height, theme in LOOKS:
            where = f"{width} px {theme}"
            page = open_page(browser, address, width, height, theme)
            devices = page.script("leases.devices.map(d => d.device)")
            check(len(devices) >= 2, f"{where}: {devices}")
            if (width, height, theme) == LOOKS[0]:
                chat(page)
                orders_by_hand(page, devices)
            timeline(page, devices[1], where)
            stays_put(page, where)
            loss_curve(page)
            looks_right(page, where)
            page.screenshot(PICTURES / f"page-{width}-{theme}.png")
            says_nothing_bad(page, address, where)
            page.close()


def asks_for_a_key(folder):
    """Without the administrators' key the page still chats, and says what it lacks."""
    key_file = folder / "admin-key"
    key_file.write_text("a-key-of-administrators-1\n")
    key_file.chmod(0o600)
    model = make_tiny_chat_model(folder / "tiny")
    home = folder / "second"
    home.mkdir()
    with Server("--set", f"server.admin_key_file={key_file}", model=model,
                TANDEM_HOME=str(home)) as server, Browser(find_chromium()) as browser:
        page = browser.page()
        page.looks(390, 844, "light", phone=True)
        page.open(server.address + "/")
        check(page.wait_for("!document.getElementById('key-card').hidden && document.getElementById("
                            "'no-leases').textContent.includes('administrators')"),
              "without a key the page asks for one and says what it is for")
        looks_right(page, "without a key")
        page.click("#key")
        page.call("Input.insertText", text="a-key-of-administrators-1")
        page.click("#key-form button")
        check(page.wait_for("document.body.dataset.leases > 0 && !document.getElementById('timeline')"
                            ".hidden && document.getElementById('key-card').hidden"),
              "with the key the devices are shown")


def dashboard_series():
    """Every series that a panel of the dashboard asks for."""
    text = (SOURCE / "configs" / "grafana_dashboard.json").read_text(encoding="utf-8")
    asked = [target["expr"] for panel in json.loads(text)["panels"]
             for target in panel.get("targets", [])]
    return sorted(set(re.findall(r"\btandem_[a-z0-9_]+", " ".join(asked))))


def dashboard_asks_for_what_there_is(server):
    asked = dashboard_series()
    check(len(asked) >= 15, f"the dashboard asks for {len(asked)} series")
    there = set(re.findall(r"^(tandem_[a-z0-9_]+)[ {]", server.get("/metrics"), re.M))
    check(not set(asked) - there, f"and all are there {sorted(set(asked) - there)}")


def main():
    if not find_chromium():
        print("skipped: no chromium (Debian's package of that name, which test.sh installs)")
        sys.exit(SKIPPED)
    running = os.environ.get("TANDEM_PAGE")
    if running:
        click_through(running.rstrip("/"))
        sys.exit(1 if failures else 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        with Server("--devices", "cpu:0-0,cpu:1-1", "--set", "model.kv_memory=256MiB",
                    TANDEM_HOME=fresh_home(folder)) as server:
            client, job = start_lasting_job(server, folder)
            check(wait_for_step(server.address, job, 3), "the job trains")
            click_through(server.address)
            dashboard_asks_for_what_there_is(server)
            client.fine_tuning.jobs.cancel(job)
        asks_for_a_key(folder)
    print(f"pictures: {PICTURES}")
    print("\n".join(["FAILED", *failures] if failures else ["all is well"]))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
