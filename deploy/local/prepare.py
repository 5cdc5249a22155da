"""The job between servers and processes: migrate the database, see to it that a model is active and compiled, store a key.

`python -m deploy.local.prepare CREDENTIALS`; a process of its own, so that the memory of training goes with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import redis
from sqlalchemy import Connection, Engine, make_url

from db.audit import OPERATOR, Act, record
from db.engine import make_engine
from db.errors import Conflict
from db.keys import ensure_key
from db.models import activate_model, current_model, register_model
from db.roles import Process
from db.schema import give_roles, upgrade
from deploy.local.credentials import load_credentials
from deploy.local.errors import LocalError
from deploy.local.postgres import DatabaseUrls
from deploy.local.product import NEWS
from schemas.key_text import read_key
from schemas.scopes import DEFAULT_TEAM, Scope
from scoring.compiled import EngineChoice
from scoring.compiling import ensure_compiled
from scoring.errors import ChurnError
from scoring.model import MANIFEST_NAME, load_bundle, save_bundle
from scoring.native import FOLDER
from settings import SettingsError, load_settings

TRAINING_ROWS: Final = 50_000
TRAINING_SEED: Final = 1
"""Differs from the demo's customers' seed: a model should not be shown at work on the rows that it learnt."""


KEY_NAME: Final = "make up"
"""What the key of a local deployment is called."""


def provide_model(
    engine: Engine,
    storage: Path,
    version: str,
    *,
    training_rows: int = TRAINING_ROWS,
    choice: EngineChoice = EngineChoice.AUTO,
) -> None:
    """Leave the database with an active, compiled model; if there is none, with one trained on synthetic customers.

    Parameters
    ----------
    storage : Path
        The folder of all bundles.
    version : str
        Name of the model that is trained, and of its folder in `storage`.
    choice : EngineChoice
        The engine that the workers are told to use.

    Raises
    ------
    LocalError
        The active model's bundle is not where it should be, or it cannot be compiled and no other engine may score it.
    """
    with engine.begin() as conn:
        try:
            champion = current_model(conn)
        except Conflict:
            _train_unless_stored(storage / version, version, training_rows)
            _compile(storage, version, load_bundle(storage / version).sha256, choice)
            _activate(conn, storage / version)
            return
    folder = storage / champion.location
    if not (folder / MANIFEST_NAME).is_file():
        raise LocalError(
            f"The database's active model is {champion.version}, but its bundle is not in {folder}: bring it back, set "
            "MODEL_STORAGE_PATH to where it is, or begin anew with `make clean`."
        )
    # Compiled already, unless it was registered elsewhere or the compiler is another one since.
    _compile(storage, champion.location, champion.sha256, choice)


def provide_key(engine: Engine, text: str) -> None:
    """Leave the database with this API key, of the default team and with every scope, unless somebody ended it.

    Raises
    ------
    LocalError
        The text is no key.
    """
    key = read_key(text)
    if key is None:
        raise LocalError("The API key among the credentials is damaged: take the line `api_key` out of that file.")
    with engine.begin() as conn:
        stored, is_new = ensure_key(conn, key, team=DEFAULT_TEAM, scopes=Scope, name=KEY_NAME, created_by=KEY_NAME)
        if is_new:
            record(conn, OPERATOR, Act.KEY_CREATED, stored.key_id, team_of_key=stored.team, scopes=list(stored.scopes))
    if not stored.is_live:
        _tell(f"The API key {stored.key_id} of this deployment is {stored.status}: `churn keys create` makes another.")


def provide_schema(urls: DatabaseUrls) -> None:
    """Migrate, and give the API's and the workers' role their rights, where the person has roles for them.

    Raises
    ------
    RoleRefused
        A role cannot be given its rights.
    """
    upgrade(urls.owner)
    owner, api, worker = (str(make_url(url).username) for url in (urls.owner, urls.api, urls.worker))
    if len({owner, api, worker}) == len(Process) + 1:
        give_roles(urls.owner, {Process.API: api, Process.WORKER: worker})


def require_redis(url: str) -> None:
    """Check that Redis answers, so that a wrong REDIS_URL is told now and not by workers that wait for it.

    Raises
    ------
    LocalError
        It does not.
    """
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError) as exc:
        raise LocalError(f"The Redis of REDIS_URL does not answer: {exc}") from exc


def _train_unless_stored(folder: Path, version: str, rows: int) -> None:
    """Train, unless an earlier start got as far as storing the bundle."""
    if folder.exists():
        return
    # scikit-learn takes seconds to import, and every start but the first does without it.
    from datasets.synthetic import DESCRIPTION, generate
    from scoring.train import train

    labelled = generate(rows, seed=TRAINING_SEED)
    source = f"{DESCRIPTION} (generate({rows}, seed={TRAINING_SEED}))"
    model = train(labelled, version=version, data=source, synthetic=True, seed=TRAINING_SEED)
    save_bundle(folder, model)
    _tell(f"Trained model {version} on {rows:,} synthetic customers: AUC {model.metrics.auc:.3f} on held-out ones.")


def _compile(storage: Path, location: str, sha256: str, choice: EngineChoice) -> None:
    if choice is EngineChoice.LIGHTGBM:
        return
    reason = ensure_compiled(storage / location, storage / FOLDER, sha256=sha256)
    if reason is not None and choice is EngineChoice.COMPILED:
        raise LocalError(f"SCORING_ENGINE=compiled, but the model in {storage / location} has no compiled engine: {reason}.")
    if reason is not None:
        _tell(f"The model in {storage / location} is not compiled, so LightGBM scores it: {reason}.")


def _activate(conn: Connection, folder: Path) -> None:
    bundle = load_bundle(folder)
    version = bundle.manifest.version
    register_model(conn, location=folder.name, **bundle.record())
    record(conn, OPERATOR, Act.MODEL_REGISTERED, version, sha256=bundle.sha256)
    record(conn, OPERATOR, Act.MODEL_ACTIVATED, version, previous=activate_model(conn, version).previous_version)


def _tell(what: str) -> None:
    sys.stdout.write(f"{NEWS}{what}\n")


def main() -> int:
    """Prepare the database and the model that the settings name, and the key of the credentials; returns the exit code."""
    try:
        settings = load_settings()
        require_redis(settings.redis_url)
        provide_schema(
            DatabaseUrls(settings.database_owner_url, api=settings.database_url, worker=settings.database_worker_url)
        )
        engine = make_engine(settings.database_owner_url, pooled=False, application_name="churn-prepare")
        choice = EngineChoice(settings.scoring_engine)
        provide_model(engine, settings.model_storage_path, settings.default_model_version, choice=choice)
        provide_key(engine, load_credentials(Path(sys.argv[1])).api_key)
    except (ChurnError, LocalError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
