"""report.html in a real Chromium: it opens from disk, filters, follows links, is accessible.

Skipped where Chromium or its driver is not installed, but not in CI.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from bootproof.harness.report import files, page
from bootproof.harness.results import results
from bootproof.harness.results.results import Area, Check, Memory, Results
from bootproof.loader.address import MIB
from tests.builders import results as builder
from tests.builders.programs import host_program

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_ARGUMENTS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDTHS: Final = (1280, 390)
HOSTILE: Final = b"</script><script>document.title = 'owned'</script>\x1b[2J\xff<b>bold</b>\n"
LOG: Final = builder.LOG + HOSTILE


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = host_program("chromium"), host_program("chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def run() -> Results:
    return builder.run(
        builder.case("elf-pvh-none", transcript=results.transcript(LOG)),
        builder.case("elf-pvh-none", "6.12"),
        builder.failed("elf-linux64-+16M"),
        builder.refused(),
        checks=(Check("test_x.py::test_y", "failed", "AssertionError: no", 1.0),),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("report")
    files.write(run(), directory, run())
    return (directory / files.PAGE).as_uri()


def opened(browser: Chrome, address: str, width: int = 1280, scheme: str = "light") -> None:
    """A fresh page: also when only the fragment of the address is another one."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get("about:blank")
    log(browser)
    browser.get(address)


def log(browser: Chrome) -> list[Any]:
    """What was said on the browser's console since the last call."""
    found: list[Any] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def js(browser: Chrome, script: str) -> Any:
    return browser.execute_script(f"return {script}")


def visible_cases(browser: Chrome) -> list[str]:
    found: list[str] = js(
        browser, "[...document.querySelectorAll('details.case:not([hidden])')].map(x => x.id)"
    )
    return found


def type_text(browser: Chrome, text: str) -> None:
    box = browser.find_element("id", "text")
    box.clear()
    box.send_keys(text)


def wait(browser: Chrome, script: str) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda _: js(browser, script))


@pytest.mark.parametrize("width", WIDTHS)
def test_opens(width: int, browser: Chrome, report: str) -> None:
    opened(browser, report, width)
    assert browser.title == "2 not as expected · bootproof"
    assert len(visible_cases(browser)) == 4
    assert js(browser, "document.documentElement.scrollWidth") <= width
    assert log(browser) == []


def test_wide_tables_scroll_in_themselves(browser: Chrome, tmp_path: Path) -> None:
    """Also with what only a screen reader reads: it is placed apart from the text around it."""
    kernels = [f"6.{minor}-of-somebody" for minor in range(6)]
    found = builder.run(*(builder.failed(kernel=kernel) for kernel in kernels))
    files.write(found, tmp_path, None)
    opened(browser, (tmp_path / files.PAGE).as_uri(), 390)
    assert js(browser, "document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", WIDTHS)
def test_the_address_of_a_case_leads_to_it(width: int, browser: Chrome, tmp_path: Path) -> None:
    """Also behind many others, whose height is not known before they are seen."""
    why = "a reason of several lines on a small screen, and of one line on a large one; " * 3
    cases = [builder.failed(f"elf-{n}", problem=f"{chr(97 + n % 26)}: {why}") for n in range(60)]
    files.write(builder.run(*cases), tmp_path, None)
    opened(browser, f"{(tmp_path / files.PAGE).as_uri()}#{cases[40].case}", width)
    # Nothing lies over it, and it is at the top.
    js(browser, f"window.item = document.getElementById('{cases[40].case}'), null")
    box = "item.querySelector('summary').getBoundingClientRect()"
    seen = f"item.contains(document.elementFromPoint({box}.x + 50, {box}.y + 5))"
    assert wait(browser, f"{seen} && {box}.y < 200")


def test_every_verdict_and_kernel_is_seen_on_a_small_screen(
    browser: Chrome, tmp_path: Path
) -> None:
    kernels = [f"6.{minor}-of-somebody-with-a-long-name-{'x' * 40}" for minor in range(4)]
    files.write(builder.run(*(builder.failed(kernel=kernel) for kernel in kernels)), tmp_path, None)
    opened(browser, (tmp_path / files.PAGE).as_uri(), 390)
    edges = "[...document.querySelectorAll('.cell')].map(x => x.getBoundingClientRect().right)"
    assert len(js(browser, edges)) == 4
    assert max(js(browser, edges)) <= 390
    named = "getComputedStyle(document.querySelector('.grid td'), '::before').content"
    assert js(browser, named) == f'"{kernels[0]}"'


def test_reason_is_seen_before_a_case_is_opened(browser: Chrome, report: str) -> None:
    opened(browser, report)
    shown = "[...document.querySelectorAll('details.case .why')].map(x => x.textContent)"
    assert js(browser, shown).count("it proved its boot") == 2
    assert "the offset is no multiple of 2 MiB" in js(browser, shown)
    assert js(browser, "document.querySelectorAll('details.case[open]').length") == 0


def test_details_are_made_when_a_case_is_opened(browser: Chrome, report: str) -> None:
    """And no sooner, but for the failures; a block that is damaged is said."""
    opened(browser, report)
    bodies = "document.querySelectorAll('details.case .body').length"
    assert js(browser, bodies) == 1
    case = "document.getElementById('x86_64-6.12-elf-pvh-none')"
    browser.execute_script(f"{case}.open = true")
    wait(browser, f"{case}.querySelector('.body') !== null")
    assert "0x1000850" in js(browser, f"{case}.textContent")
    assert js(browser, bodies) == 2
    opened(browser, report)
    browser.execute_script("document.querySelector('.block').textContent = 'eA=='")
    browser.execute_script(f"{case}.open = true")
    wait(browser, f"{case}.querySelector('.body') !== null")
    assert "results.json has them" in js(browser, f"{case}.textContent")


def test_alike_failures_are_filtered_by_what_is_said_of_all(
    browser: Chrome, tmp_path: Path
) -> None:
    bad = [builder.failed(f"c{n}", problem="the same of all") for n in range(3)]
    files.write(builder.run(builder.case(), *bad), tmp_path, None)
    opened(browser, (tmp_path / files.PAGE).as_uri())
    type_text(browser, "same of all")
    assert len(visible_cases(browser)) == 3
    type_text(browser, "pvh")
    assert js(browser, "document.querySelector('.alike').hidden") is True


def test_asks_nobody_for_anything(browser: Chrome, report: str) -> None:
    opened(browser, report)
    assert js(browser, "performance.getEntriesByType('resource').map(x => x.name)") == []


def test_filters(browser: Chrome, report: str) -> None:
    opened(browser, report)
    type_text(browser, "PVH 6.12")
    assert visible_cases(browser) == ["x86_64-6.12-elf-pvh-none"]
    assert js(browser, "document.getElementById('shown').textContent") == "1 of 4 cases"
    assert js(browser, "document.querySelectorAll('.grid tbody tr:not([hidden])').length") == 1
    type_text(browser, "no such thing")
    assert visible_cases(browser) == []
    assert js(browser, "document.getElementById('nothing').hidden") is False
    type_text(browser, "unable to mount")  # in a reason
    assert visible_cases(browser) == ["x86_64-6.1-elf-linux64-+16M"]


def test_filters_by_verdict(browser: Chrome, report: str) -> None:
    from selenium.webdriver.support.select import Select

    opened(browser, report)
    Select(browser.find_element("id", "verdict")).select_by_visible_text("load-refused")
    assert visible_cases(browser) == ["x86_64-6.1-elf-linux64-+1M"]
    Select(browser.find_element("id", "verdict")).select_by_value("")
    browser.find_element("id", "bad").click()
    assert visible_cases(browser) == ["x86_64-6.1-elf-linux64-+16M"]


def test_link_to_a_case(browser: Chrome, report: str) -> None:
    """An id with a + in it, from outside and from the grid; also when a filter hides it."""
    opened(browser, f"{report}#x86_64-6.1-elf-linux64-%2B1M")
    opened_ids = "[...document.querySelectorAll('details.case[open]')].map(x => x.id)"
    wait(browser, f"{opened_ids}.length > 0")
    assert js(browser, opened_ids) == ["x86_64-6.1-elf-linux64-+1M"]
    top = "document.querySelector('details.case[open]').getBoundingClientRect().top"
    wait(browser, f"{top} < innerHeight")
    wait(browser, "document.activeElement.parentElement.id === 'x86_64-6.1-elf-linux64-+1M'")
    type_text(browser, "6.12")
    browser.execute_script("location.hash = 'x86_64-6.1-elf-pvh-none'")
    wait(browser, "document.getElementById('x86_64-6.1-elf-pvh-none').open")
    assert len(visible_cases(browser)) == 4


@pytest.mark.parametrize("fragment", ["#%", "#none", "#filters", "#%ff"])
def test_link_to_nothing(fragment: str, browser: Chrome, report: str) -> None:
    opened(browser, report + fragment)
    assert len(visible_cases(browser)) == 4
    assert log(browser) == []


def test_by_keyboard(browser: Chrome, report: str) -> None:
    """From the filter to a cell of the grid, and with Enter to its case."""
    from selenium.webdriver.common.keys import Keys

    opened(browser, report)
    browser.find_element("id", "text").click()
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if "cell" in (browser.switch_to.active_element.get_attribute("class") or ""):
            break
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    wait(browser, "document.querySelector('details.case[open]') !== null")
    assert js(browser, "document.activeElement.tagName") == "SUMMARY"


def test_hostile_transcript_is_shown_and_does_nothing(browser: Chrome, report: str) -> None:
    opened(browser, f"{report}#x86_64-6.1-elf-pvh-none")
    pre = "document.querySelector('details.case[open] .transcript pre')"
    wait(browser, f"{pre} !== null")
    browser.execute_script(f"{pre}.parentElement.open = true")
    wait(browser, f"{pre}.childNodes.length > 0")
    text: str = js(browser, f"{pre}.textContent")
    printed = "</script><script>document.title = 'owned'</script>\\x1b[2J\\xff<b>bold</b>"
    assert printed in text
    assert "stage: first-output, banner\n[    0.000000] Linux version 6.1" in text
    assert "stage: proof\nbootproof: proof 11" in text
    assert js(browser, f"{pre}.querySelectorAll('b, script').length") == 0
    assert browser.title == "2 not as expected · bootproof"
    assert log(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_accessible(width: int, scheme: str, browser: Chrome, report: str) -> None:
    """Nothing that axe-core calls serious, with everything opened."""
    opened(browser, report, width, scheme)
    opening = "document.querySelectorAll('details').forEach(x => x.open = true)"
    browser.execute_script(opening)
    wait(browser, "document.querySelectorAll('.case:not(:has(.body))').length === 0")
    browser.execute_script(opening)
    wait(browser, "document.querySelector('.transcript pre').childNodes.length > 0")
    assert _violations(browser) == []


def test_history_is_accessible(browser: Chrome, tmp_path: Path) -> None:
    from bootproof.harness.report import history_page
    from bootproof.harness.results import history

    runs = [run(), builder.run(builder.failed("elf-pvh-none"), started="2026-03-01T00:00:00Z")]
    path = tmp_path / "history.html"
    path.write_text(history_page.render(history.trends(runs)))
    for width in WIDTHS:
        opened(browser, path.as_uri(), width)
        assert js(browser, "document.documentElement.scrollWidth") <= width
        assert _violations(browser) == []
    assert log(browser) == []


def test_script_that_is_not_ours_is_not_run(browser: Chrome, tmp_path: Path) -> None:
    """Also where escaping failed: the page's policy knows its own script only."""
    text = page.render(run()).replace("<main>", "<main><script>document.title='owned'</script>")
    path = tmp_path / "report.html"
    path.write_text(text)
    opened(browser, path.as_uri())
    assert browser.title == "2 not as expected · bootproof"
    assert "Content Security Policy" in str(log(browser))


def _violations(browser: Chrome) -> list[str]:
    """Serious and critical ones, with the elements."""
    import axe_core_python

    script = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    browser.execute_script(script)
    found: dict[str, Any] = browser.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run().then(done)"
    )
    assert len(found["passes"]) > 10  # it has looked
    return [
        f"{item['id']}: {[node['target'] for node in item['nodes'][:3]]}"
        for item in found["violations"]
        if item["impact"] in ("serious", "critical")
    ]


def test_without_a_script_nothing_is_offered_that_needs_one(browser: Chrome, report: str) -> None:
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        opened(browser, report)
        shown = browser.find_element("class name", "filters").value_of_css_property("display")
        notice = browser.find_element("css selector", "noscript .notice").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert shown == "none"
    assert notice.startswith("Without a script this page shows how every case ended")


def test_sizes_are_whole_on_a_small_screen(browser: Chrome, tmp_path: Path) -> None:
    """Also of a case in a block of those that are alike."""
    parts = [("gdt", 0x1000, 64), ("boot_params", 0x2000, 4096), ("page tables", 0x3000, 24 << 10)]
    parts += [("reset stub", 0x9000, 600), ("kernel file", 16 * MIB, 46 * MIB)]
    parts += [("initrd", 510 * MIB, 2 * MIB - 4096)]
    memory = Memory((Area("RAM bank 0", 0, 512 * MIB),), tuple(Area(*part) for part in parts))
    files.write(builder.run(*(builder.failed(c, memory=memory) for c in "ab")), tmp_path, None)
    opened(browser, f"{(tmp_path / files.PAGE).as_uri()}#x86_64-6.1-a", 390)
    table = "document.querySelector('.alike .scroll[aria-label^=Memory]')"
    assert wait(browser, table)
    assert js(browser, f"{table}.scrollWidth - {table}.clientWidth") == 0
