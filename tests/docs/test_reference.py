from __future__ import annotations

import importlib.util
import re
import typing
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pydantic import BaseModel

from automl_prune.config import Config
from automl_prune.space import Space
from automl_prune.view import News
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_page_has_every_key_with_its_default_and_meaning(hooks: ModuleType) -> None:
    lines = [re.split(r" ?\| ?", line) for line in hooks.on_page_markdown("<!-- configuration -->").splitlines()]
    rows = {cells[1]: cells[2:5] for cells in lines if len(cells) > 4}
    sections = {f"{name}.": field.default for name, field in Config.model_fields.items()}
    for prefix, section in sections.items():
        if isinstance(section, BaseModel):
            for name, value in section.model_dump(mode="json").items():
                if not isinstance(value, dict):
                    _, default, meaning = rows[f"`{prefix}{name}`"]
                    assert yaml.safe_load(default.strip("`")) == value
                    assert meaning.endswith(".")
    assert {"`model.factory`", "`data`", "`budget`", "`training.sparse.bn`"} <= rows.keys()
    assert rows["`search.trials`"][0] == "whole number ≥ 1"
    assert rows["`training.warmup`"][0] == "number ≥ 0, < 1"


def test_the_space_page_has_every_key_also_those_of_bounds(hooks: ModuleType) -> None:
    table = hooks.on_page_markdown("<!-- search space -->")
    assert all(f"| `{name}` |" in table for name in Space.model_fields)
    assert "| `bounds.PATTERN.min_width` |" in table
    assert "`all` or `group`" in table


def test_a_key_that_is_not_described_stops_the_build(hooks: ModuleType) -> None:
    class Undescribed(BaseModel):
        """A section.

        Attributes:
            one: Is described.
        """

        one: int = 1
        two: int = 2

    with pytest.raises(KeyError, match=r"Undescribed\.two is not described"):
        hooks.configuration(Undescribed)


def test_the_page_of_commands_has_all_of_them_with_their_examples(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown("<!-- commands -->")
    names = re.findall(r"^## (\S+)$", page, re.MULTILINE)
    assert {"search", "one-shot", "worker", "report"} <= set(names)
    assert page.count("Example: automl-prune ") >= len(names)


def test_the_page_of_events_has_every_field_of_every_event() -> None:
    page = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `(\w+)` \| (.*)$", page, re.MULTILINE)}
    for news in typing.get_args(News):
        fields = set(news.__dataclass_fields__) - {"event", "others"}
        assert {field for field in fields if f"`{field}`" not in rows[news.event]} == set()


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), ROOT / "README.md"], ids=lambda path: path.stem)
def test_configurations_on_pages_have_known_keys(page: Path) -> None:
    for block in re.findall(r"^```yaml.*?\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for key in re.findall(r"^(\w+):", block, re.MULTILINE):
            assert key in {*Config.model_fields, *Space.model_fields}
