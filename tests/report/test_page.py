from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from automl_prune.report import build_report
from automl_prune.report.sections import ORDER
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]
VOID = {"meta", "link", "br", "hr", "img", "input"}
CASES: dict[str, dict[str, object]] = {
    "full": {},
    "regression": {"regression": True},
    "no finalists": {"finalists": 0},
    "one seed": {"seeds": 1, "standard_errors": False},
    "over budget": {"over_budget": True, "finalists": 0},
    "one trial": {"trials": 1, "finalists": 0},
    "all failed": {"fail_all": True, "finalists": 0},
    "no trials": {"trials": 0, "finalists": 0},
}


class Page(HTMLParser):
    """What the tests ask of a page; raises on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    @property
    def ids(self) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get("id"))]


def built(record: StudyRecord, folder: Path) -> tuple[str, Page]:
    path = build_report(record, folder / "report.html")
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.mark.parametrize("case", CASES)
def test_every_section_is_there_and_nothing_is_fetched(make_record: MakeRecord, tmp_path: Path, case: str) -> None:
    text, page = built(make_record(**CASES[case]), tmp_path)
    assert text.startswith("<!DOCTYPE html>")
    identifiers = [part.identifier for part in ORDER]
    assert [i for i in page.ids if i in identifiers] == identifiers
    assert len(page.ids) == len(set(page.ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert set(links) == {f"#{identifier}" for identifier in identifiers}
    for _, attributes in page.tags:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attributes
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "img", "object", "embed")]
    outside = text.replace(get_plotlyjs(), "")
    assert not re.search(r"https?://|@import|url\(", outside)
    assert "default-src 'none'" in outside


def test_plotly_is_inlined_once_and_the_file_stays_small(make_record: MakeRecord, tmp_path: Path) -> None:
    text, _ = built(make_record(trials=1000), tmp_path)
    assert text.count(get_plotlyjs()) == 1
    assert len(text.encode()) < 8_000_000


def section_of(text: str, identifier: str) -> str:
    return text.split(f'<section id="{identifier}"')[1].split("</section>")[0]


@pytest.mark.parametrize("case", CASES)
def test_a_figure_is_drawn_or_left_out_with_a_reason(make_record: MakeRecord, tmp_path: Path, case: str) -> None:
    full, _ = built(make_record(trials=60), tmp_path / "full")
    text, page = built(make_record(**CASES[case]), tmp_path)
    drawn = [part.identifier for part in ORDER if 'class="plot"' in section_of(full, part.identifier)]
    assert {"front", "widths", "criteria", "history", "rungs", "importance"} <= set(drawn)
    for identifier in drawn:
        body = section_of(text, identifier)
        assert 'class="plot"' in body or 'class="missing"' in body, identifier
    sources = {a["data-figure"] for tag, a in page.tags if tag == "script" and "data-figure" in a}
    sources |= {"figure-front" for tag, a in page.tags if tag == "script" and a.get("id") == "front-figures"}
    plots = {a["id"]: a for tag, a in page.tags if a.get("class") == "plot"}
    assert sources == set(plots)
    for attributes in plots.values():
        assert attributes["role"] in ("img", "group")
        assert len(attributes["aria-label"] or "") > 60


def test_figures_are_json_with_data(make_record: MakeRecord, tmp_path: Path) -> None:
    _, page = built(make_record(), tmp_path)
    found = [json.loads(script) for script in page.scripts if script.startswith('{"data"')]
    (front,) = (json.loads(script)["figures"] for script in page.scripts if script.startswith('{"figures"'))
    assert list(front) == ["finalists/macs", "finalists/params", "search/macs", "search/params"]
    found += [view["figure"] for view in front.values()]
    assert len(found) >= 6
    assert all(figure["data"] and figure["layout"]["xaxis"]["title"]["text"] for figure in found)


def test_trials_table_sorts_by_full_precision(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    text, _ = built(record, tmp_path)
    body = text[text.index('<section id="trials"') : text.index('<section id="protected"')]
    rows = re.findall(r"<tr[^>]*><th.*?</tr>", body.split("<tbody>")[1], flags=re.DOTALL)
    assert len(rows) == len(record.trials)
    for row, trial in zip(rows, record.trials, strict=True):
        keys = re.findall(r'data-value="([^"]*)"', row)
        assert keys[0] == str(trial.number)
        scores = [str(rung.score.value) for rung in trial.evaluation.rungs] if trial.evaluation else ["", ""]
        assert keys[1:3] == scores
    assert body.count('<button type="button">') == len(re.findall(r'<th scope="col"', body))


def test_hostile_strings_are_text(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' &amp; \u2028"
    context = replace(
        record.context,
        name=evil,
        config={evil: [evil], "model": {"factory": evil}},
        skipped=((evil, 3, evil),),
        environment={evil: evil},
        group_widths={evil: 16, **record.context.group_widths},
        metric=replace(record.context.metric, name=evil),
    )
    trials = tuple(
        replace(t, origin=evil if t.origin != "search" else "search", reason=evil if t.state == "failed" else None)
        for t in record.trials
    )
    safe_text, _ = built(record, tmp_path / "safe")
    text, page = built(replace(record, context=context, trials=trials), tmp_path / evil.replace("/", "_"))
    assert text.count("<script") == safe_text.count("<script")
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [a for _, a in page.tags if "onerror" in a]
    assert evil in page.text
    assert json.dumps(evil, ensure_ascii=False)[1:-1] in page.text, "the configuration is shown as it is"


@pytest.mark.parametrize("case", ["full", "regression", "over budget"])
def test_the_answer_is_first_and_in_words(make_record: MakeRecord, tmp_path: Path, case: str) -> None:
    text, page = built(make_record(**CASES[case]), tmp_path)
    main = text[text.index("<main>") :]
    assert main.index('id="answer"') < main.index('id="front"')
    if case == "over budget":
        assert "No completed trial meets the budget." in page.text
    else:
        assert "of the dense model's MACs" in page.text
        assert "on the validation split and are reported on the test split" in page.text
        assert "95 % interval" in page.text


def test_writing_again_replaces_the_file(make_record: MakeRecord, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    built(make_record(trials=1, finalists=0), tmp_path)
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert str(tmp_path) in path.read_text(encoding="utf-8"), "the commands name the run directory"


def test_equal_records_give_equal_pages(make_record: MakeRecord, tmp_path: Path) -> None:
    assert built(make_record(), tmp_path)[0] == built(make_record(), tmp_path)[0]
