"""Nothing of the product reads data that could run: no pickle and its kin, no eval, no YAML that makes objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring import manifest, model
from settings import load_settings

ROOT = Path(__file__).parents[2]
OURS = ("api", "broker", "cli", "client", "datasets", "db", "deploy", "intake", "schemas", "scoring", "workers")

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "skops", "copyreg"}
CALLS = {"eval", "exec", "compile", "__import__", "loads_pickle", "read_pickle", "to_pickle"}


def sources() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))])


def unsafe(source: str) -> Iterator[str]:
    """What of a module's text imports or calls something that could run data."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(name), level=0) if name.split(".")[0] in MODULES:
                yield name
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Call(func=ast.Attribute(attr=name)) if name in {"read_pickle", "to_pickle"}:
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="importlib"), attr="import_module")):
                yield "importlib.import_module"
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                yield "allow_pickle"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_ours_runs_data(path: Path) -> None:
    assert list(unsafe(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import yaml.loader",
        "eval(text)",
        "numpy.load(f, allow_pickle=True)",
        "pd.read_pickle(f)",
    ],
)
def test_it_would_be_found(source: str) -> None:
    assert list(unsafe(source))


def test_a_bundle_is_json_and_text() -> None:
    assert (manifest.json.__name__, model.MANIFEST_NAME, model.MODEL_NAME) == ("json", "manifest.json", "model.txt")


def test_celery_takes_nothing_but_json() -> None:
    from celeryconfig import producer_config, worker_config

    settings = load_settings({"DATABASE_URL": "postgresql://d/d", "REDIS_URL": "redis://r/0"})
    for config in (producer_config(settings), worker_config(settings)):
        assert config["accept_content"] == ["json"]
        assert config["task_serializer"] == config["event_serializer"] == "json"
        assert config["result_backend"] is None
