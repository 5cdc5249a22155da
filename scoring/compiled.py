"""The compiled engine: a model's trees as machine code, beside LightGBM and held to it.

lleaves [1]_ turns the trees into LLVM's language, LLVM turns that into object code; `scoring.compiling` does so once a model.
Here the object code is only loaded, in milliseconds, and held to LightGBM before it may score. Whatever stands in its way,
LightGBM scores instead: the same numbers at a higher price.

References
----------
.. [1] S. Boehm, "lleaves", https://github.com/siboehm/lleaves
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from ctypes import CFUNCTYPE, POINTER, c_double, c_int32
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scoring.engine import Engine, LightGBMEngine
from scoring.errors import EngineUnavailable
from scoring.features import FEATURES, Feature, Kind
from scoring.model import MODEL_NAME, ModelBundle
from scoring.native import ALTERED, identity_of, read_native

TOLERANCE: Final = 1e-12
"""How far a compiled probability may lie from LightGBM's; found are 1e-15 and less, as sums are taken in another order."""

DIFFERS: Final = "differs"
"""The cause of a fallback where machine code scores otherwise than LightGBM."""

ROOT_FUNCTION: Final = "forest_root"
CODE_MODEL: Final = "large"
"""With LLVM's smaller ones very large forests are known to crash."""

N_RANDOM_ROWS: Final = 500
_MISSING_SHARE: Final = 0.15
_EDGES: Final = (0.0, -1.0, 1e9, -1e9)
_MAX_ROWS: Final = 2**31 - 1

_Function = CFUNCTYPE(None, POINTER(c_double), POINTER(c_double), c_int32, c_int32)


class EngineChoice(StrEnum):
    """Which engine scores: the fastest that can be had, or one and no other."""

    AUTO = "auto"
    LIGHTGBM = "lightgbm"
    COMPILED = "compiled"


@dataclass(frozen=True, slots=True, eq=False)
class ChosenEngine:
    """An engine, and why it is not the compiled one.

    Attributes
    ----------
    name : str
        ``compiled`` or ``lightgbm``.
    fallback : EngineUnavailable or None
        What stood in the way of the compiled engine; None where nothing did, or it was not asked for.
    """

    engine: Engine
    name: EngineChoice
    fallback: EngineUnavailable | None = None


class CompiledEngine:
    """A model's machine code; within `TOLERANCE` of what ``Booster.predict`` returns, in one thread.

    Parameters
    ----------
    object_code : bytes
        As `scoring.compiling.compile_model` returns it for this processor. It is run: it must come from there.

    Raises
    ------
    EngineUnavailable
        LLVM cannot load it (``not_loadable``).
    """

    def __init__(self, object_code: bytes) -> None:
        try:
            # The loaded code lives as long as this object, and the function is an address in it.
            self._loaded = _load(object_code)
            address = self._loaded.get_function_address(ROOT_FUNCTION)
        except (ImportError, RuntimeError, OSError) as exc:
            raise EngineUnavailable(f"the machine code cannot be loaded: {exc}", code="not_loadable") from exc
        if not address:
            raise EngineUnavailable(f"the machine code has no function {ROOT_FUNCTION}", code="not_loadable")
        self._function = _Function(address)

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `scoring.engine.Engine.predict`; other threads run meanwhile."""
        rows = np.ascontiguousarray(matrix, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(FEATURES) or len(rows) >= _MAX_ROWS:
            # Machine code looks at no bounds: another shape would be read beyond its end.
            raise ValueError(f"a matrix of shape (n, {len(FEATURES)}) is needed, not {matrix.shape}")
        probability = np.zeros(len(rows))
        pointer = POINTER(c_double)
        self._function(rows.ctypes.data_as(pointer), probability.ctypes.data_as(pointer), 0, len(rows))
        return probability


def choose_engine(
    bundle: ModelBundle,
    *,
    choice: EngineChoice,
    native_folder: Path,
    num_threads: int = 1,
    watch: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> ChosenEngine:
    """Build the engine that scores a model. Nothing is compiled here: that takes seconds, and customers wait.

    Parameters
    ----------
    bundle : ModelBundle
        As `scoring.model.load_bundle` returns it.
    native_folder : Path
        Where compiled files are kept, see `scoring.native.FOLDER`.
    num_threads : int
        Threads of one prediction by LightGBM; the compiled engine takes one.
    watch : callable
        Makes what the check of the compiled engine runs inside of, to be timed; the check ends by an error where it fails.

    Raises
    ------
    EngineUnavailable
        The compiled engine was asked for and cannot be had; with ``auto`` that is told in the result, unless its file was
        altered (``altered_file``): then the model is not used at all.
    BundleCorrupt, BundleMismatch
        LightGBM refuses the model: then no engine scores it.
    """
    lightgbm = LightGBMEngine(bundle.model_text, num_threads=num_threads)
    if choice is EngineChoice.LIGHTGBM:
        return ChosenEngine(lightgbm, EngineChoice.LIGHTGBM)
    try:
        return ChosenEngine(_compiled(bundle, native_folder, lightgbm, watch), EngineChoice.COMPILED)
    except EngineUnavailable as exc:
        if choice is EngineChoice.COMPILED or exc.code == ALTERED:
            raise
        return ChosenEngine(lightgbm, EngineChoice.LIGHTGBM, exc)


def check_compiled(bundle: ModelBundle, native_folder: Path) -> None:
    """Hold a model's compiled file to its checksum, if there is one for this machine that we may read.

    Raises
    ------
    EngineUnavailable
        The file was altered (``altered_file``): workers do not use the model.
    """
    try:
        read_native(native_folder, identity_of(bundle.manifest.files[MODEL_NAME]))
    except EngineUnavailable as exc:
        if exc.code == ALTERED:
            raise


def check_parity(engine: Engine, lightgbm: LightGBMEngine, bundle: ModelBundle) -> None:
    """Hold an engine to LightGBM on the bundle's reference rows and on random ones.

    Raises
    ------
    EngineUnavailable
        A probability lies further than `TOLERANCE` from LightGBM's, or is not a number (``differs``).
    """
    rows = np.vstack([bundle.manifest.reference.matrix, random_rows(N_RANDOM_ROWS)])
    difference = np.abs(engine.predict(rows) - lightgbm.predict(rows)).max()
    if not difference <= TOLERANCE:
        raise EngineUnavailable(f"it scores up to {difference:.3g} away from LightGBM, more than {TOLERANCE}", code=DIFFERS)


def random_rows(n: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Feature rows, shape (n, 15), over and beyond what customers can be: missing values, edges, categories never declared."""
    random = np.random.default_rng(seed)
    rows = np.column_stack([_random_column(feature, n, random) for feature in FEATURES])
    rows[random.random(rows.shape) < _MISSING_SHARE] = np.nan
    return rows


def _random_column(feature: Feature, n: int, random: np.random.Generator) -> NDArray[np.float64]:
    match feature.kind:
        case Kind.CATEGORY:
            return random.integers(-1, len(feature.categories) + 40, n).astype(np.float64)
        case Kind.BOOLEAN:
            return random.integers(0, 2, n).astype(np.float64)
        case Kind.INTEGER | Kind.DECIMAL:
            low, high = float(feature.low or 0), float(feature.high or 0)
            # Most customers lie near the lower end of a feature's range, and so do most of the trees' thresholds.
            values = low + (high - low) * random.random(n) ** random.choice((1, 3, 6), n)
            values = np.where(random.random(n) < 0.5, np.rint(values), values)
            return np.where(random.random(n) < 0.05, random.choice(_EDGES, n), values)


def _compiled(
    bundle: ModelBundle,
    native_folder: Path,
    lightgbm: LightGBMEngine,
    watch: Callable[[], AbstractContextManager[object]],
) -> CompiledEngine:
    identity = identity_of(bundle.manifest.files[MODEL_NAME])
    engine = CompiledEngine(read_native(native_folder, identity))
    with watch():
        check_parity(engine, lightgbm, bundle)
    return engine


def _load(object_code: bytes) -> Any:
    """Let LLVM's linker load object code, as lleaves does it, but from the bytes that were checked and not from a file."""
    from llvmlite import binding as llvm

    llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), reloc="pic", codemodel=CODE_MODEL)
    loaded = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    loaded.set_object_cache(getbuffer_func=lambda _: object_code)
    loaded.finalize_object()
    loaded.run_static_constructors()
    return loaded
