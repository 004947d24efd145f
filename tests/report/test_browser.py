"""The report in a real browser: Chromium without a window, driven by Playwright, with the network cut."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from automl_prune.files import read_json
from automl_prune.report import build_report
from automl_prune.report.sections import ORDER
from automl_prune.study.record import StudyRecord
from automl_prune.tasks.images import read_idx
from tests.tasks.test_images import idx_bytes

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra dev)")

ROOT = Path(__file__).parents[2]
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
MakeRecord = Callable[..., StudyRecord]
CHROMIUM = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
# A browser is no Python package, so `make test` cannot bring one; the page itself is tested in test_page.py everywhere.
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian's package chromium)")


@dataclass
class Opened:
    """A page, and everything it complained about or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def card(self) -> Any:
        return self.page.locator("#card")

    def title(self) -> str:
        return str(self.card.locator("h3").text_content())

    def look_through(self) -> None:
        """Scroll past every figure, as a reader does, until all are drawn."""
        for plot in self.page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
        playwright.expect(self.page.locator(".plot:not(.js-plotly-plot)")).to_have_count(0)

    def click(self, trial: int) -> None:
        """Click the mark of a trial as a hand does: go there, see what it is, press."""
        self.page.wait_for_timeout(400)  # two clicks within 300 ms are plotly's double click
        x, y = self.point(trial)
        self.page.mouse.move(x, y)
        self.page.locator(".hoverlayer .hovertext", has_text=f"trial {trial}").wait_for()
        self.page.mouse.down()
        self.page.mouse.up()
        playwright.expect(self.card.locator("h3")).to_have_text(f"Trial {trial}")

    def point(self, trial: int) -> tuple[float, float]:
        """Where the mark of a trial is, in pixels of the window."""
        found = self.page.evaluate(
            """(trial) => {
              const place = document.getElementById("figure-front");
              place.scrollIntoView({ block: "center" });
              const box = place.getBoundingClientRect(), { xaxis, yaxis } = place._fullLayout;
              for (const trace of place.data) {
                const at = (trace.customdata ?? []).indexOf(trial);
                if (at >= 0) return [box.x + xaxis._offset + xaxis.d2p(trace.x[at]),
                                     box.y + yaxis._offset + yaxis.d2p(trace.y[at])];
              }
            }""",
            trial,
        )
        assert found, f"trial {trial} is not drawn"
        return found[0], found[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a file; whatever it logs or requests is recorded, and every request but the file's own is refused."""
    contexts = []

    def open_file(path: Path, **options: Any) -> Opened:
        context = browser.new_context(**options)
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.route(re.compile("^(?!file:)"), lambda route: route.abort())
        found.page.goto(path.as_uri())
        found.page.locator("#figure-front.js-plotly-plot").wait_for()
        return found

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture
def report(make_record: MakeRecord, tmp_path: Path) -> Path:
    return build_report(make_record(), tmp_path / "report.html")


def check_opens(found: Opened, path: Path) -> None:
    """Every section is there with something in it, every figure is drawn; no complaint, no request to anywhere."""
    assert found.page.locator("main > section").evaluate_all("all => all.map((s) => s.id)") == [
        p.identifier for p in ORDER
    ]
    for part in found.page.locator("main > section").all():
        assert part.locator("table, .plot, .missing, pre, p").count() > 0, part.get_attribute("id")
        for reason in part.locator(".missing:not(.printonly)").all_text_contents():
            assert len(reason) > 20
    found.look_through()
    for plot in found.page.locator(".plot").all():
        assert plot.locator(".main-svg").count() > 0, plot.get_attribute("id")
    assert found.complaints == []
    assert found.requests == [path.as_uri()]


def test_it_opens_offline_without_a_complaint(report: Path, opened: Callable[..., Opened]) -> None:
    check_opens(opened(report), report)


def test_figures_are_drawn_when_they_come_near_and_nothing_moves(report: Path, opened: Callable[..., Opened]) -> None:
    found = opened(report)
    far = found.page.locator("#figure-workers")
    assert far.locator(".main-svg").count() == 0
    before = found.page.evaluate("document.documentElement.scrollHeight")
    found.look_through()
    assert far.locator(".main-svg").count() > 0
    assert found.page.evaluate("document.documentElement.scrollHeight") == before


def test_a_click_on_a_point_opens_its_card(
    make_record: MakeRecord, report: Path, opened: Callable[..., Opened]
) -> None:
    found = opened(report)
    first, last = (make_record().finalists[index].trial for index in (0, -1))
    for trial in (first, last):
        found.click(trial)
    assert "accuracy, test" in found.card.inner_text()
    found.card.locator("summary").click()
    assert found.card.locator("tbody tr").count() == len(make_record().context.group_widths)


def test_switches_change_stage_and_cost(report: Path, opened: Callable[..., Opened]) -> None:
    found = opened(report)
    axes = found.page.locator("#figure-front .infolayer")
    assert "test accuracy" in axes.text_content()
    found.page.get_by_label("all trials, validation split").check()
    found.page.get_by_label("parameters").check()
    playwright.expect(found.page.locator("#figure-front .xtitle")).to_contain_text("Parameters")
    assert "validation accuracy" in axes.text_content()
    found.click(12)
    assert "Over budget" in found.card.inner_text()
    assert found.complaints == []


def test_the_keyboard_walks_the_front_and_the_tables(report: Path, opened: Callable[..., Opened]) -> None:
    found = opened(report)
    plot = found.page.locator("#figure-front")
    plot.focus()
    order = []
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        found.page.keyboard.press(key)
        order.append(found.title())
    assert len(set(order)) == 3
    assert order[1] == order[3]
    found.page.keyboard.press("Enter")
    assert found.page.evaluate("document.activeElement.id") == "card"
    found.page.keyboard.press("Escape")
    assert found.page.evaluate("document.activeElement.id") == "figure-front"
    number = found.page.locator("#trials button.opens").nth(7)
    number.focus()
    found.page.keyboard.press("Enter")
    assert found.title() == f"Trial {number.text_content()}"
    head = found.page.locator("#trials th button").first
    head.focus()
    found.page.keyboard.press("Enter")
    found.page.keyboard.press("Enter")
    numbers = [int(text) for text in found.page.locator("#trials tbody th").all_text_contents()]
    assert numbers == sorted(numbers, reverse=True)


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(...)`` (WCAG 2.1)."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def check_contrast(found: Opened, *more: tuple[str, str], dark: bool) -> None:
    """Text stands out from the paper, which is as dark as it was asked to be (WCAG 2.1, AA)."""
    style = "(element, name) => getComputedStyle(element)[name]"
    paper = luminance(found.page.locator("body").evaluate(style, "backgroundColor"))
    assert (paper < 0.05) == dark
    for selector, name in (
        ("#answer p", "color"), ("figcaption", "color"), (".xtick text", "fill"), (".legendtext", "fill"),
        ("nav a", "color"), ("#card dt", "color"), *more,
    ):  # fmt: skip
        ink = luminance(found.page.locator(selector).first.evaluate(style, name))
        high, low = max(ink, paper), min(ink, paper)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{selector} does not stand out"


def check_narrow(found: Opened) -> None:
    """Nothing is wider than the window, before and after a model is chosen."""
    assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found.click(int(found.title().split()[1]))
    assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(report: Path, opened: Callable[..., Opened], scheme: str) -> None:
    found = opened(report, color_scheme=scheme)
    check_contrast(found, (".annotation-text", "fill"), ("tr.faint td", "color"), dark=scheme == "dark")


def test_a_phone_need_not_scroll_sideways(report: Path, opened: Callable[..., Opened]) -> None:
    check_narrow(opened(report, viewport={"width": 400, "height": 800}))


# The data come from Debian or a download, neither of which `make test` may rely on.
@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="no Fashion-MNIST here (Debian's package dataset-fashion-mnist)")
def test_the_report_of_a_real_search(tmp_path: Path, opened: Callable[..., Opened]) -> None:
    take_images(tmp_path / "data", train=700, test=200)
    overrides = (
        "search.trials=6",
        f"data={{name: fashion_mnist, root: {tmp_path / 'data'}, batch_size: 50, validation: 200}}",
        "evaluation={calibration_samples: 64, finetune_steps: 1, finalists: 2, finetune_epochs: 0.1, seeds: 2}",
    )
    sets = [word for override in overrides for word in ("--set", override)]
    config, run_dir = ROOT / "experiments" / "fashion_mnist_resnet20" / "config.yaml", tmp_path / "run"
    command = [sys.executable, "-m", "automl_prune", "search", str(config), "--run-dir", str(run_dir), *sets]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    report = run_dir / "report.html"
    desk = opened(report)
    check_contrast(desk, dark=False)
    chosen = desk.title()
    for trial in {int(row["trial"]) for row in read_json(run_dir / "front.json")}:
        desk.click(trial)
        assert "model.onnx" in desk.card.inner_text()
    assert chosen in desk.page.locator("#answer").inner_text()
    check_opens(desk, report)
    phone = opened(report, viewport={"width": 400, "height": 800}, color_scheme="dark")
    check_contrast(phone, dark=True)
    check_narrow(phone)


def take_images(folder: Path, *, train: int, test: int) -> None:
    """The first images of the real set, with their labels, in its own format."""
    folder.mkdir()
    for prefix, count in (("train", train), ("t10k", test)):
        for name in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"):
            values = read_idx(FASHION_MNIST / name)[:count].numpy()
            (folder / name).write_bytes(gzip.compress(idx_bytes(values)))


def test_print_fits_the_paper_and_the_screen_is_put_back(report: Path, opened: Callable[..., Opened]) -> None:
    found = opened(report, viewport={"width": 1366, "height": 900})
    widths = "[...document.querySelectorAll('.js-plotly-plot')].map((plot) => plot._fullLayout.width)"
    found.page.emulate_media(media="print")
    found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    plots = found.page.locator(".plot")
    assert found.page.evaluate(widths) == [700] * plots.count()
    assert not found.page.locator("nav").is_visible()
    assert found.page.get_by_text("left out in print").is_visible()
    found.page.emulate_media(media="screen")
    found.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert found.page.evaluate(widths) == [box["width"] for plot in plots.all() if (box := plot.bounding_box())]
    assert found.complaints == []


@pytest.mark.parametrize("case", [{"finalists": 0}, {"over_budget": True, "finalists": 0}, {"regression": True}])
def test_unfinished_and_unusual_studies_open_too(
    make_record: MakeRecord, tmp_path: Path, opened: Callable[..., Opened], case: dict[str, Any]
) -> None:
    found = opened(build_report(make_record(**case), tmp_path / "report.html"))
    assert found.complaints == []
    assert found.title().startswith("Trial")
