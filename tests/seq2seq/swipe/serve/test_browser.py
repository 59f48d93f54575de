"""The page in a real browser: a word is swiped by mouse, its suggestion read and inserted."""

import itertools
import shutil
import threading

import numpy as np
import pytest
import uvicorn

from seq2seq.swipe.serve.address import listen
from seq2seq.swipe.serve.app import make_app
from tests.seq2seq.swipe.serve.stand_in import QWERTY, StandIn, path

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
ui = pytest.importorskip("selenium.webdriver.support.ui")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
)
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": False}
PATIENCE = 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed on this machine"),
]


@pytest.fixture(scope="module")
def address():
    """The page of the stand-in, on a free port."""
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app({"tiny": StandIn()}), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


def wait(browser, condition):
    return ui.WebDriverWait(browser, PATIENCE).until(condition)


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def swipe(browser, word: str) -> list[str]:
    """Draw a word by mouse, and return the suggestions that were there before the button was released."""
    (canvas,) = find(browser, "#keyboard")
    corners = path(word, QWERTY) * QWERTY.key_width * canvas.size["width"] / QWERTY.size[0]
    corners -= np.array([canvas.size["width"], canvas.size["height"]]) / 2  # offsets are from the middle
    steps = [start + (end - start) * share for start, end in itertools.pairwise(corners) for share in (0.5, 1)]
    drawing = webdriver.ActionChains(browser, duration=60)
    drawing.move_to_element_with_offset(canvas, *corners[0].astype(int).tolist()).click_and_hold()
    for step in steps:
        drawing.move_to_element_with_offset(canvas, *step.astype(int).tolist())
    drawing.perform()
    early = [button.text for button in wait(browser, lambda browser: find(browser, "#suggestions button"))]
    webdriver.ActionChains(browser).release().perform()
    wait(browser, lambda browser: find(browser, "#chips button"))
    return early


def test_hello(browser, address):
    browser.get(address)
    wait(browser, lambda browser: find(browser, "#letters button"))
    assert swipe(browser, "hello")
    best = find(browser, "#suggestions button")[0]
    word, share = best.text.split("\n")
    assert word == "hello"
    assert share.endswith("%")
    assert best.get_attribute("aria-label").startswith("Insert hello, ")
    assert [chip.text for chip in find(browser, "#chips button")] == ["h", "e", "l", "o"]
    best.send_keys("\n")  # by keyboard
    (text,) = find(browser, "#text")
    assert text.get_attribute("value") == "hello "
    swipe(browser, "dont")
    find(browser, "#suggestions button")[0].click()
    assert text.get_attribute("value") == "hello don't "
    find(browser, "#undo")[0].click()
    assert text.get_attribute("value") == "hello "
    assert not browser.get_log("browser")  # the content security policy blocks nothing that the page needs


def test_a_letter_with_the_focus_colours_the_trace(browser, address):
    browser.get(address)
    wait(browser, lambda browser: find(browser, "#letters button"))
    swipe(browser, "hello")
    drawn = "return document.getElementById('keyboard').toDataURL()"
    letters = {button.get_attribute("textContent"): button for button in find(browser, "#letters button")}
    pictures = set()
    letters["q"].send_keys("h")
    for letter in ("h", "j"):
        assert browser.switch_to.active_element == letters[letter]
        pictures.add(browser.execute_script(drawn))
        browser.switch_to.active_element.send_keys(webdriver.Keys.ARROW_RIGHT)
    assert len(pictures) == 2
    assert not browser.get_log("browser")


def test_it_fits_a_phone(browser, address):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        browser.get(address)
        wait(browser, lambda browser: find(browser, "#letters button"))
        swipe(browser, "their")
        assert find(browser, "#suggestions button")[0].text.startswith("their")
        wide, high = browser.execute_script(
            "const root = document.documentElement; return [root.scrollWidth, root.scrollHeight]"
        )
        assert (wide, high) == (PHONE["width"], PHONE["height"])  # nothing to scroll
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
