"""curve.html in a real browser, on a phone's screen and on a desk's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="NOT TESTED in a browser: needs selenium")
pytest.importorskip("matplotlib", reason="NOT TESTED: pages need matplotlib")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from bsexport.curve.findings import findings
from bsexport.curve.page import write_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAMES = ("normal <b>&amp;</b>", "$sparse$")  # what a page or a plot might take for its own


def a_point(prune: float | None, value: float, bits: float) -> dict[str, Any]:
    figures = {"accuracy": {"value": value, "low": value - 0.02, "high": value + 0.01}}
    if prune is None:
        return {"prune": None, "step": None, "figures": figures, "command": ""}
    sizes = {"weights_bytes": int(1e6 * bits), "of_fp32": bits / 32, "bits_per_weight": bits, "sparsity": prune}
    return {"prune": prune, "step": 2**-8, "figures": figures, **sizes, "command": f"pack </script> --prune {prune}"}


def a_record() -> dict[str, Any]:
    models = []
    for name, fall in zip(NAMES, (0.4, 0.02), strict=True):
        points = [a_point(None, 0.9, 32), *(a_point(p, 0.9 - fall * p, 6 - 6 * p) for p in (0.0, 0.3, 0.6, 0.9))]
        model = {"name": name, "fp32_bytes": 4_000_000, "points": points}
        models.append({**model, "findings": findings(model, "accuracy")})
    data = {"name": "reviews.csv", "split": "test"}
    return {"models": models, "primary": "accuracy", "examples": 2000, "data": data, "versions": {"bsexport": "0.1.0"}}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "curve.html"
    write_page(path, a_record())
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    binary, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("NOT TESTED in a browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(params=[(390, 844), (1280, 900)], ids=["phone", "desk"])
def shown(browser: Any, page: Path, request: pytest.FixtureRequest) -> Any:
    width, height = request.param
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    return browser


def texts(browser: Any, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_nothing_sticks_out_and_nothing_is_asked_of_the_net(shown: Any) -> None:
    width, inner = shown.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner
    assert shown.get_log("browser") == []
    asked = [entry["message"] for entry in shown.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert not [message for message in asked if '"url":"http' in message]
    sizes = shown.execute_script(
        "return [...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)"
    )
    assert min(size for size in sizes if size) >= 8  # pixels: to be read on a phone


def test_what_the_page_says(shown: Any) -> None:
    assert shown.find_element(By.TAG_NAME, "h1").text == f"{', '.join(NAMES)}: accuracy"
    assert texts(shown, "h2") == [*NAMES, "Every point"]
    assert "2,000 examples of reviews.csv (test)" in shown.find_element(By.TAG_NAME, "p").text
    assert len(texts(shown, "li")) == 10
    assert len(shown.find_elements(By.CSS_SELECTOR, "tbody tr")) == 10
    row = shown.execute_script("return [...document.querySelectorAll('tbody tr')[3].cells].map(c => c.textContent)")
    assert row == [
        NAMES[0],
        "0.6",
        "2^-8",
        "0.6600 (0.6400-0.6700)",
        "2.400",
        "7.50%",
        "2,400,000",
        "60.0%",
        "pack </script> --prune 0.6",
    ]
    assert {*texts(shown, "svg text")} >= {*NAMES}


def test_a_point_tells_its_figures(shown: Any) -> None:
    points = shown.find_elements(By.CSS_SELECTOR, ".point")
    assert len(points) == 16  # 4 of each model in each panel
    hint = shown.find_element(By.ID, "hint")
    assert not hint.is_displayed()
    for point in (points[2], points[10]):  # the same in both panels
        shown.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
        ActionChains(shown).move_to_element(point).perform()
        lines = hint.text.split("\n")
        label = point.get_attribute("aria-label").split(", ")
        assert lines[0] == label[0]
        assert lines[1:7] == ["pruned", label[1], "step", label[2], "accuracy", label[3]]
        box = shown.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.left, b.right]", hint)
        assert box[0] >= 0 and box[1] <= shown.execute_script("return innerWidth")
        marked = shown.execute_script("return [...document.querySelectorAll('tr.on')].map(r => r.cells[1].textContent)")
        assert marked == [label[1]]
        assert len(shown.find_elements(By.CSS_SELECTOR, ".point.on")) == 2
    ActionChains(shown).send_keys(Keys.ESCAPE).perform()
    assert not hint.is_displayed()


def test_points_can_be_reached_by_keyboard(shown: Any) -> None:
    point = shown.find_elements(By.CSS_SELECTOR, ".point")[5]
    shown.execute_script("arguments[0].focus()", point)
    hint = shown.find_element(By.ID, "hint")
    assert hint.is_displayed() and hint.text.startswith(NAMES[1])
    shown.execute_script("arguments[0].blur()", point)
    assert not hint.is_displayed()
