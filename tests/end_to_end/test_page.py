"""The run's page in headless Chromium: it draws without an error, a click zooms, a filter filters, a text of others does not run."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select, WebDriverWait

from paddlealign.report.__main__ import main
from paddlealign.report.page import write_page
from paddlealign.report.serve import LivePage, is_allowed, make_server
from paddlealign.report.thin import GROUPS
from tests.browsers import PATIENCE, started_browser
from tests.small_pages import write_long_run, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with started_browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def open_page(browser: WebDriver, address: str) -> None:
    """Open a page, and wait for its first chart, which may lie below the screen."""
    browser.get(address)
    browser.execute_script("document.querySelector('.card').scrollIntoView({behavior: 'instant', block: 'center'})")
    until(browser, lambda: drawn(browser))


def until(browser: WebDriver, condition: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, PATIENCE, poll_frequency=0.1).until(lambda _: condition())


def drawn(browser: WebDriver) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, ".card[data-drawn]")


def complaints(browser: WebDriver) -> list[str]:
    """What the console says beyond information."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]


def bounds(card: Any) -> tuple[float, float]:
    return float(card.get_attribute("data-start")), float(card.get_attribute("data-end"))


def test_the_page_draws_zooms_smooths_and_filters(browser: WebDriver, tmp_path: Path):
    page = write_page(write_run(tmp_path / "run"))
    open_page(browser, page.as_uri())
    for card in browser.find_elements(By.CSS_SELECTOR, ".card"):  # each is drawn when it is looked at
        browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", card)
        until(browser, lambda card=card: card.get_attribute("data-drawn"))
    first, *_, last = browser.find_elements(By.CSS_SELECTOR, ".card[data-kind=curves]")
    whole = bounds(first)
    assert whole[0] < 1 < 20 < whole[1]

    click(browser, "[data-range='0.5']")
    assert bounds(first) == bounds(last) == (10.5, 20)
    click(browser, "[data-range='1']")
    assert bounds(first) == whole

    click(browser, ".card .widen")
    assert "wide" in first.get_attribute("class")

    entry = first.find_element(By.CSS_SELECTOR, ".legend button")
    browser.execute_script("arguments[0].click()", entry)
    assert first.find_element(By.CSS_SELECTOR, ".legend button").get_attribute("aria-pressed") == "false"

    browser.execute_script("const it = document.getElementById('smoothing'); it.value = 0.5; it.dispatchEvent(new Event('input'))")
    assert browser.find_element(By.CSS_SELECTOR, "output[for=smoothing]").text == "0.5"

    theme = browser.execute_script("return document.documentElement.dataset.theme")
    click(browser, "#theme")
    assert browser.execute_script("return document.documentElement.dataset.theme") == {"light": "dark", "dark": "light"}[theme]

    assert shown(browser) == 3
    browser.find_element(By.ID, "search").send_keys("legs")
    assert shown(browser) == 1
    assert browser.find_element(By.ID, "count").text == "1 of 3"
    browser.find_element(By.ID, "search").clear()
    browser.execute_script("document.getElementById('search').dispatchEvent(new Event('input'))")
    Select(browser.find_element(By.ID, "filter")).select_by_value("worse")
    assert shown(browser) == 1
    Select(browser.find_element(By.ID, "filter")).select_by_value("")
    assert shown(browser) == 3
    assert browser.title == "run · PaddleAlign"  # the hostile texts would have made it another one
    assert complaints(browser) == []


def click(browser: WebDriver, selector: str) -> None:
    element = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", element)
    element.click()


def shown(browser: WebDriver) -> int:
    return len([it for it in browser.find_elements(By.CSS_SELECTOR, ".pair:not(.head)") if not it.get_attribute("hidden")])


def test_of_a_long_run_only_what_is_looked_at_is_drawn(browser: WebDriver, tmp_path: Path):
    page = write_page(write_long_run(tmp_path / "run", 10_000))
    assert page.stat().st_size < 2_500_000
    browser.get(page.as_uri())
    browser.execute_script("document.querySelector('#curves').scrollIntoView({behavior: 'instant'})")
    near = "[...document.querySelectorAll('.card')].filter((it) => it.getBoundingClientRect().top < innerHeight + 250)"
    until(browser, lambda: browser.execute_script(f"return {near}.every((it) => it.dataset.drawn)"))
    cards = browser.find_elements(By.CSS_SELECTOR, ".card")
    assert 0 < len(drawn(browser)) == browser.execute_script(f"return {near}.length") < len(cards) == 14
    points = "JSON.parse(document.getElementById('data').textContent).charts.flatMap((it) => it.curves).map((it) => it.x.length)"
    assert max(browser.execute_script(f"return {points}")) <= 2 * GROUPS + 2
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", cards[-1])
    until(browser, lambda: cards[-1].get_attribute("data-drawn"))
    assert complaints(browser) == []


def test_a_script_in_the_page_that_is_not_its_own_is_refused(browser: WebDriver, tmp_path: Path):
    """Even a text that is not escaped cannot run: the policy names the page's own scripts."""
    page = write_page(write_run(tmp_path / "run"))
    text = page.read_text(encoding="utf-8")
    hostile = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    page.write_text(text.replace("<main>", f"<main>{hostile}"), encoding="utf-8")
    open_page(browser, page.as_uri())
    assert browser.title == "run · PaddleAlign"
    assert len([it for it in complaints(browser) if "Content Security Policy" in it]) >= 2


def test_several_runs_are_laid_over_each_other(browser: WebDriver, tmp_path: Path):
    runs = [write_run(tmp_path / name, beta=beta) for name, beta in (("a", 0.1), ("b", 0.5))]
    assert main([*map(str, runs), "-o", str(tmp_path / "both.html")]) == 0
    open_page(browser, (tmp_path / "both.html").as_uri())
    names = [it.text for it in browser.find_elements(By.CSS_SELECTOR, ".card .legend")[0].find_elements(By.TAG_NAME, "button")]
    assert names == ["a", "b", "training rows", "dev rows"]
    pressed = "return [...document.querySelector('.legend').children].map((it) => it.ariaPressed)"
    browser.execute_script("document.querySelector('.legend').children[1].click()")  # the run b: what is left of each kind is a's
    assert browser.execute_script(pressed) == ["true", "false", "true", "true"]
    browser.execute_script("document.querySelector('.legend').children[3].click()")
    assert browser.execute_script(pressed) == ["true", "false", "true", "false"]
    assert complaints(browser) == []


def test_a_phone_shows_it_without_scrolling_sideways(browser: WebDriver, tmp_path: Path):
    page = write_page(write_run(tmp_path / "run"))
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)  # type: ignore[attr-defined]
    try:
        open_page(browser, page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})  # type: ignore[attr-defined]
    assert complaints(browser) == []


# Served live


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    folder = write_run(tmp_path / "run", finished=False)
    with make_server(LivePage([folder], ["run"]), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield folder, server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_server_only_shows_and_only_to_its_own_address(served: tuple[Path, int]):
    folder, port = served
    before = sorted(folder.rglob("*"))
    assert ask(port, "/")[0] == 200
    assert ask(port, "/", host=f"localhost:{port}")[0] == 200
    assert ask(port, "/", host="evil.example")[0] == 403
    assert ask(port, "/version", host=f"127.0.0.1.evil.example:{port}")[0] == 403
    assert ask(port, "/../run.json")[0] == ask(port, "/run.json")[0] == 404
    assert [ask(port, "/", method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3
    assert ask(port, "/", "HEAD") == (200, b"")
    (folder / "run.json").rename(folder / "gone")
    assert ask(port, "/")[0] == 503
    (folder / "gone").rename(folder / "run.json")
    assert sorted(folder.rglob("*")) == before


def test_who_may_ask():
    assert is_allowed("127.0.0.1:8008", "127.0.0.1")
    assert is_allowed("[::1]:8008", "::1")
    assert not is_allowed("10.0.0.7:8008", "127.0.0.1")
    assert not is_allowed("", "127.0.0.1")
    assert is_allowed("10.0.0.7:8008", "10.0.0.7")
    assert is_allowed("any.name", "0.0.0.0")


def test_the_live_page_follows_the_run(browser: WebDriver, served: tuple[Path, int]):
    folder, port = served
    open_page(browser, f"http://127.0.0.1:{port}/")
    assert "step 20 of 40" in browser.find_element(By.CSS_SELECTOR, ".state").text
    time.sleep(6)  # it has asked once
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 21, "loss": 0.1}) + "\n")
    until(browser, lambda: "step 21 of 40" in browser.find_element(By.TAG_NAME, "header").text)
    assert [it for it in complaints(browser) if "favicon" not in it] == []


def test_a_port_that_is_taken_is_told(served: tuple[Path, int], capsys: pytest.CaptureFixture[str]):
    folder, port = served
    assert main([str(folder), "--serve", "--port", str(port)]) == 1
    assert re.search(rf"error: --serve: cannot listen at 127\.0\.0\.1 port {port}", capsys.readouterr().err)


def test_ctrl_c_ends_the_server(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    command = [sys.executable, "-m", "paddlealign.report", str(folder), "--serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        address = re.match(r"(http://127\.0\.0\.1:\d+/) ", process.stdout.readline())
        assert address
        with urllib.request.urlopen(address[1], timeout=PATIENCE) as answer:
            assert b"PaddleAlign" in answer.read()
        process.send_signal(2)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
    assert not (folder / "report.html").exists()
