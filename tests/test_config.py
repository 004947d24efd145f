from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from automl_prune.budget import Budget
from automl_prune.config import Config
from automl_prune.errors import ConfigError, DataError, ModelError
from automl_prune.files import tensors_digest
from automl_prune.finalists import Run
from automl_prune.space import Space
from automl_prune.tasks import Task
from automl_prune.yaml_file import to_yaml

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*/config.yaml"))
MINIMAL: dict[str, Any] = {
    "model": {"factory": "automl_prune.models:resnet8", "args": {"num_classes": 10, "in_channels": 1}},
    "data": {"name": "digits"},
    "budget": {"macs": 0.5},
    "space": "search_spaces/per_group.yaml",
}


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(to_yaml({**MINIMAL, **changes}))
    return path


def write_idx(path: Path, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">i4").tobytes()
    path.write_bytes(header + values.tobytes())


def tiny_fashion_mnist(root: Path) -> list[str]:
    random = np.random.default_rng(0)
    root.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        write_idx(root / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return ["data.validation=10"]


def tiny_cifar10(root: Path) -> list[str]:
    random = np.random.default_rng(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {b"data": random.integers(0, 256, (10, 3072), dtype=np.uint8), b"labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return ["data.validation=10"]


def tiny_imagenet(root: Path) -> list[str]:
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in ("n01440764", "n01443537"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (260, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    return ["data.validation=2"]


WRITERS = {"fashion_mnist": tiny_fashion_mnist, "cifar10": tiny_cifar10, "image_folder": tiny_imagenet}


def test_the_experiments_of_the_readme_are_there() -> None:
    assert {path.parent.name for path in EXPERIMENTS} >= {
        "digits", "fashion_mnist_resnet20", "fashion_mnist_resnet56", "fashion_mnist_mobilenetv2",
        "cifar10_resnet56", "imagenet_resnet18", "imagenet_resnet50",
    }  # fmt: skip
    assert all((path.parent / "README.md").is_file() for path in EXPERIMENTS)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.parent.name)
def test_every_experiment_builds_on_data_in_its_layout(path: Path, tmp_path: Path) -> None:
    plain = Config.load(path)
    write_data = WRITERS.get(str(plain.data["name"]))
    sets = [f"data.root={tmp_path / 'data'}", *write_data(tmp_path / "data")] if write_data else []
    config = Config.load(path, sets)
    assert config.name == path.parent.name
    assert isinstance(config.load_space(), Space)
    assert isinstance(config.parsed_budget(), Budget)
    task, model = config.build_task(), config.build_model().eval()
    assert isinstance(task, Task)
    with torch.no_grad():
        outputs = model(*task.example_inputs)
    assert outputs.shape == (2, config.model.args["num_classes"])
    assert config.evaluation.finalist(task).steps >= 1
    assert config.training.recipe().epochs == config.training.epochs


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.parent.name)
def test_the_resolved_configuration_loads_again_to_an_equal_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.load(path, ["search.seed=3", "training.learning_rate=1e-5"])
    copy = tmp_path / "runs" / "other" / "config.yaml"
    copy.parent.mkdir(parents=True)
    copy.write_text(to_yaml(config.resolved()))
    monkeypatch.chdir(tmp_path)
    assert Config.load(copy) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serach": {}}, "unknown key 'serach'; did you mean 'search'"),
        ({"search": {"trails": 3}}, "unknown key 'search.trails'; did you mean 'trials'"),
        ({"search": {"trials": "many"}}, r"search.trials: .*integer \(got 'many'\)"),
        ({"search": {"trials": 2.5}}, r"search.trials: .*integer \(got 2.5\)"),
        ({"search": {"trials": 0}}, r"search.trials: .*greater than or equal to 1 \(got 0\)"),
        ({"search": {"trials": True}}, r"search.trials: .*\(got True\)"),
        ({"search": {"strategy": "bayes"}}, r"unknown strategy; .*known are: cmaes, ddpg, .*tpe \(got 'bayes'\)"),
        ({"search": {"strategy": "tpa"}}, r"search.strategy: unknown strategy; did you mean 'tpe'\? \(got 'tpa'\)"),
        ({"evaluation": {"distill": 1}}, r"evaluation.distill: .*boolean \(got 1\)"),
        ({"evaluation": {"learning_rate": -1}}, r"evaluation.learning_rate: give a positive number.* \(got -1\)"),
        ({"evaluation": {"learning_rate": "fast"}}, r"evaluation.learning_rate: give a positive.* \(got 'fast'\)$"),
        ({"training": {"learning_rate": float("inf")}}, r"training.learning_rate: .*\(got inf\)"),
        ({"latency": {"thread": 2}}, "unknown key 'latency.thread'; did you mean 'threads'"),
        ({"latency": {"threads": 0}}, r"latency.threads: .*greater than or equal to 1 \(got 0\)"),
        ({"latency": {"runtime": "onnx"}}, r"latency.runtime: unknown runtime; .*'onnxruntime'.* \(got 'onnx'\)"),
        ({"training": {"momentum": 1.0}}, r"training.momentum: .*less than 1 \(got 1.0\)"),
        ({"budget": {"latncy": 0.5}}, "budget: unknown metric 'latncy'"),
        ({"budget": {"macs": [1]}}, r"budget: macs=\[1\] is not a positive number"),
        ({"budget": {}}, "budget: the budget is empty|budget: the .*empty"),
        ({"budget": None}, "key 'budget' is missing"),
        ({"data": {"batch_size": 3}}, "data: give either 'name'"),
        ({"data": {"name": "digits", "factory": "a:b"}}, "data: give either 'name'"),
        ({"name": "a/b"}, "the name becomes a folder"),
        ({"name": ".."}, "the name becomes a folder"),
        ({"model": {"args": {}}}, "key 'model.factory' is missing"),
    ],
)
def test_wrong_values_are_named_with_their_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_every_problem_has_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, serach={}, search={"trials": "many"})
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert len(str(caught.value).splitlines()) == 2


def test_an_empty_section_is_an_absent_one(tmp_path: Path) -> None:
    assert Config.load(write(tmp_path, training=None, search=None)) == Config.load(write(tmp_path))


def test_overrides_replace_values_and_are_checked_alike(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path), ["search.trials=7", "training.weight_decay=5e-4", "model.weights=null"])
    assert (config.search.trials, config.training.weight_decay, config.model.weights) == (7, 5e-4, None)
    with pytest.raises(ConfigError, match=r"unknown key 'search\.trails'"):
        Config.load(write(tmp_path), ["search.trails=7"])


def test_weights_lie_beside_the_file_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a" / "b", model={**MINIMAL["model"], "weights": "baseline.safetensors"})
    for other in (tmp_path, tmp_path / "a", tmp_path / "here"):
        other.mkdir(exist_ok=True)
        (other / "baseline.safetensors").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert Config.load(path).model.weights == str(path.parent / "baseline.safetensors")


def test_relative_paths_of_overrides_are_those_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", model={**MINIMAL["model"], "weights": "w.safetensors"})
    (tmp_path / "a" / "data").mkdir()
    (tmp_path / "here" / "data").mkdir(parents=True)
    (tmp_path / "a" / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path / "here")
    config = Config.load(path, ["model.weights=w.safetensors", "data.root=data"])
    assert config.model.weights == str(tmp_path / "here" / "w.safetensors")
    assert config.data["root"] == str(tmp_path / "here" / "data")


def test_data_are_looked_up_beside_the_file_then_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a" / "b", data={"name": "digits", "root": "d"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert Config.load(path).data["root"] == str(tmp_path / "here" / "d")
    (tmp_path / "a" / "d").mkdir()
    assert Config.load(path).data["root"] == str(tmp_path / "a" / "d")
    (tmp_path / "a" / "b" / "d").mkdir()
    assert Config.load(path).data["root"] == str(tmp_path / "a" / "b" / "d")


def test_the_spaces_of_the_package_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.load(write(tmp_path / "a"))
    assert Path(config.space).is_file()
    assert isinstance(config.load_space(), Space)
    own = tmp_path / "a" / "search_spaces" / "per_group.yaml"
    own.parent.mkdir()
    own.write_text("residual: 0.25")
    assert Config.load(write(tmp_path / "a")).load_space().residual == 0.25


def test_variables_and_the_home_folder_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SETS", "/sets")
    assert Config.load(write(tmp_path, data={"name": "digits", "root": "~/x"})).data["root"] == str(tmp_path / "x")
    assert Config.load(write(tmp_path, data={"name": "digits", "root": "${SETS}/x"})).data["root"] == "/sets/x"


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    path = write(tmp_path, data={"name": "digits", "root": "$NO_SUCH_VARIABLE/x"})
    with pytest.raises(ConfigError, match=r"data\.root is '\$NO_SUCH_VARIABLE/x', but .* NO_SUCH_VARIABLE is not set"):
        Config.load(path)
    assert Config.load(path, ["data.root=/y"]).data["root"] == "/y"


def test_secrets_stay_out_of_what_is_written(tmp_path: Path) -> None:
    data = {
        "factory": "a:b",
        "url": "postgresql://me:hunter2@host/db",
        "urls": ["s3://key:hunter2@store/x", "https://h/x?a=1&password=hunter2&b=2"],
        "nested": {"api_token": "hunter2", "password": "hunter2"},
        "tokens": 5,
    }
    config = Config.load(write(tmp_path, data=data))
    assert config.data["url"] == "postgresql://me:hunter2@host/db"
    resolved = config.resolved()
    assert "hunter2" not in str(resolved)
    assert resolved["data"]["url"] == "postgresql://me@host/db"
    assert resolved["data"]["urls"][1] == "https://h/x?a=1&password=***&b=2"
    assert resolved["data"]["tokens"] == 5


def test_models_are_initialised_from_the_seed_alone(tmp_path: Path) -> None:
    def digest(seed: int) -> str:
        return tensors_digest(Config.load(write(tmp_path), [f"search.seed={seed}"]).build_model().state_dict())

    before = torch.random.get_rng_state()
    first = digest(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert digest(0) == first
    assert digest(1) != first


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("model.factory=automl_prune.models:resnet21", ConfigError, "did you mean 'resnet20'"),
        ("model.factory=nowhere:build", ConfigError, "model.factory 'nowhere:build': No module named 'nowhere'"),
        ("model.args.widht=8", ConfigError, "takes no argument 'widht'; did you mean 'width'"),
        ("model.args.num_classes=-3", ConfigError, "failed with .*num_classes"),
        ("model={factory: 'builtins:dict'}", ModelError, r"'builtins:dict' returned dict, not a torch\.nn\.Module"),
    ],
)
def test_a_model_that_cannot_be_built_is_explained(
    tmp_path: Path, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Config.load(write(tmp_path), [override]).build_model()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"name": "digit"}, ConfigError, "data.name: unknown data set 'digit'; did you mean 'digits'"),
        ({"name": "digits", "batchsize": 8}, ConfigError, "takes no argument 'batchsize'; did you mean 'batch_size'"),
        ({"name": "digits", "batch_size": 0}, DataError, "batch_size is 0"),
        ({"name": "image_folder"}, ConfigError, "needs the argument 'root'; add data.root"),
        ({"name": "fashion_mnist", "root": "/nowhere"}, DataError, "dataset-fashion-mnist.*torchvision"),
        ({"factory": "builtins:dict"}, ConfigError, "returned dict, not a Task; it lacks .*batches"),
    ],
)
def test_data_that_cannot_be_built_are_explained(
    tmp_path: Path, data: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Config.load(write(tmp_path, data=data)).build_task()


def test_data_of_a_users_own_factory_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own_data.py").write_text(
        "from automl_prune.tasks import tasks\n\ndef small(*, batch_size):\n"
        "    return tasks['digits'](batch_size=batch_size)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = Config.load(write(tmp_path, data={"factory": "users_own_data:small", "batch_size": 16}))
    images, _ = next(iter(config.build_task().batches("val")))
    assert len(images) == 16


def test_finalists_may_have_devices_and_a_precision_of_their_own(digits_task: Task) -> None:
    words = ("evaluation.finalist_devices=[cuda:0,cuda:1]", "evaluation.finalist_precision=bf16-mixed")
    evaluation = Config.load(EXPERIMENTS[0], words).evaluation
    recipe = evaluation.finalist(digits_task)
    assert (recipe.devices, recipe.precision) == (("cuda:0", "cuda:1"), "bf16-mixed")
    rung = evaluation.recipe().finetuning
    assert rung is None or (rung.devices, rung.precision) == ((), "32-true"), "candidates stay with their worker"
    run = Run(3, 1, recipe)
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_a_file_of_its_own_name_names_the_study(tmp_path: Path) -> None:
    path = write(tmp_path / "flowers")
    assert Config.load(path).name == "flowers"
    (tmp_path / "flowers" / "half.yaml").write_text(path.read_text())
    assert Config.load(tmp_path / "flowers" / "half.yaml").name == "half"
    assert Config.load(tmp_path / "flowers" / "half.yaml", ["name=mine"]).name == "mine"


@pytest.mark.parametrize("space", [{}, {"space": None}])
def test_the_default_space_comes_with_the_package(
    space: dict[str, None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    without = {key: value for key, value in MINIMAL.items() if key != "space"}
    (tmp_path / "config.yaml").write_text(to_yaml({**without, **space}))
    config = Config.load(tmp_path / "config.yaml")
    assert Path(config.space).is_absolute()
    assert config.load_space() == Space()


def test_a_task_without_preprocessing_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).parent / "tasks" / "regression_task.py"
    (tmp_path / "mine.py").write_text(source.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, data={"factory": "mine:RegressionTask"})
    assert Config.load(path).build_task().preprocessing is None
