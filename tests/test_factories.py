from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from automl_prune.errors import ConfigError, DataError
from automl_prune.factories import call, import_function, to_trust


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of a user's."""
    (tmp_path / "users_models.py").write_text("width = 3\n\ndef build(depth, *, bias=True):\n    return depth, bias\n")
    (tmp_path / "users_broken.py").write_text("def build(:\n")
    (tmp_path / "users_raising.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "users_models"


def test_a_named_function_is_found_and_called(user_module: str) -> None:
    build = import_function(f"{user_module}:build", "model.factory")
    assert call(build, {"depth": 4}, "build", "model.args") == (4, True)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("users_models.build", "write it as 'package.module:function'"),
        (":build", "write it as 'package.module:function'"),
        ("users_models:", "write it as 'package.module:function'"),
        ("users_nowhere:build", "No module named 'users_nowhere'; install it"),
        ("users_models:biuld", "has no function 'biuld'; did you mean 'build'"),
        ("users_models:width", "has int, not a function, 'width'"),
        ("users_broken:build", "importing users_broken failed: SyntaxError"),
        ("users_raising:build", "importing users_raising failed: RuntimeError: no licence .*users_raising.py:1"),
    ],
)
@pytest.mark.usefixtures("user_module")
def test_what_cannot_be_found_is_explained(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        import_function(reference, "model.factory")
    assert str(caught.value).startswith("model.factory")


def _factory(depth: int, *, width: int = 1) -> int:
    return depth // width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 1, "widht": 2}, "takes no argument 'widht'; did you mean 'width'"),
        ({"width": 2}, "needs the argument 'depth'; add model.args.depth"),
        ({"depth": 1, "width": 0}, r"failed with .*ZeroDivisionError.*test_factories.py:\d+"),
        ({"depth": "x"}, "failed with .*TypeError"),
    ],
)
def test_wrong_arguments_and_crashes_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(_factory, arguments, "the factory", "model.args")


def test_errors_of_this_package_pass_through() -> None:
    def missing() -> None:
        raise DataError("no files")

    with pytest.raises(DataError, match=r"^no files$"):
        call(missing, {}, "missing", "data")


def test_functions_without_a_signature_and_open_ended_ones_are_called() -> None:
    assert call(dict, {"any": 1}, "dict", "model.args") == {"any": 1}
    assert call(lambda **options: options, {"any": 1}, "lambda", "model.args") == {"any": 1}


def test_what_has_to_be_trusted_is_named() -> None:
    ours = {"model": {"factory": "torchvision.models:resnet18"}, "data": {"name": "digits"}}
    assert to_trust(ours) == []
    assert to_trust({"model": {"factory": "mine.nets:net"}, "data": {"factory": "yours:data"}}) == ["mine", "yours"]
    assert to_trust({}) == []
