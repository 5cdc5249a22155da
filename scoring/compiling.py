"""Compiling a model once, when it is registered, in a process of its own.

A compiler may take seconds and hundreds of megabytes, and a fault in it may end its process; none of that should be the
registering one's, and no worker compiles at all. What it made is loaded and held to LightGBM there too, before anyone else can
find it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scoring.compiled import CODE_MODEL, ROOT_FUNCTION, CompiledEngine, check_parity
from scoring.engine import LightGBMEngine
from scoring.errors import EngineUnavailable, ModelError
from scoring.model import MODEL_NAME, load_bundle
from scoring.native import identity_of, make_folder, read_native, write_native

TIMEOUT_S: Final = 900.0
"""300 trees of 31 leaves take some seconds; twenty times as many should not block an installation for ever."""

_REFUSED: Final = 3


def ensure_compiled(bundle_path: Path, native_folder: Path, *, sha256: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Compile a stored bundle's model for this machine, unless that is done.

    Parameters
    ----------
    bundle_path : Path
        The bundle's folder.
    native_folder : Path
        Where compiled files are kept, see `scoring.native.FOLDER`.
    sha256 : str
        The bundle's, as it is registered.

    Returns
    -------
    str or None
        Why there is no compiled model; None if there is one. Never an exception of the compiler: LightGBM scores as well.
    """
    try:
        identity = identity_of(load_bundle(bundle_path, expected_sha256=sha256).manifest.files[MODEL_NAME])
    except ModelError as exc:
        return str(exc)
    try:
        read_native(native_folder, identity)
    except EngineUnavailable:
        return _compile_apart(bundle_path, native_folder, sha256, timeout_s)
    return None


def compile_model(model_text: str) -> bytes:
    """Object code of a model for this processor; takes seconds.

    Parameters
    ----------
    model_text : str
        A binary classifier in LightGBM's text format, its checksum verified.

    Raises
    ------
    EngineUnavailable
        The compiler is missing (``missing_compiler``), or cannot do this model (``not_compilable``).
    """
    try:
        import lleaves
    except (ImportError, OSError) as exc:
        raise EngineUnavailable(f"the compiler is not installed: {exc}", code="missing_compiler") from exc
    if "\nis_linear=1" in model_text:
        # lleaves passes over the leaves' formulas in silence.
        raise EngineUnavailable("the model has linear trees, which cannot be compiled", code="not_compilable")
    with tempfile.TemporaryDirectory(prefix="churn-compile-") as folder:
        model_file, object_file = Path(folder) / MODEL_NAME, Path(folder) / "model.o"
        model_file.write_text(model_text)
        try:
            lleaves.Model(model_file=str(model_file)).compile(
                cache=object_file, fcodemodel=CODE_MODEL, froot_func_name=ROOT_FUNCTION
            )
        except Exception as exc:
            # It asserts, indexes and parses its way through the text; every way to fail means the same here.
            raise EngineUnavailable(
                f"the model cannot be compiled: {type(exc).__name__}: {exc}", code="not_compilable"
            ) from exc
        return object_file.read_bytes()


def _compile_apart(bundle_path: Path, native_folder: Path, sha256: str, timeout_s: float) -> str | None:
    command = [sys.executable, "-m", __name__, str(bundle_path.resolve()), str(native_folder.resolve()), sha256]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent.parent,  # Where the package is found, wherever the command was given.
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"compiling took longer than {timeout_s:.0f} s and was ended"
    except OSError as exc:
        return f"the compiler's process cannot be started: {exc}"
    if done.returncode == 0:
        return None
    said = done.stdout if done.returncode == _REFUSED else done.stderr
    return said.strip()[-500:] or f"the compiler's process ended with status {done.returncode}"


def _compile_bundle(bundle_path: Path, native_folder: Path, sha256: str) -> None:
    bundle = load_bundle(bundle_path, expected_sha256=sha256)
    make_folder(native_folder)  # First: seconds of compiling for a folder that cannot be written to would be wasted.
    lightgbm = LightGBMEngine(bundle.model_text)
    object_code = compile_model(bundle.model_text)
    check_parity(CompiledEngine(object_code), lightgbm, bundle)
    write_native(native_folder, identity_of(bundle.manifest.files[MODEL_NAME]), object_code)


def main() -> int:
    """Compile the bundle that the arguments name: its folder, the folder of compiled files, its SHA-256."""
    bundle_path, native_folder, sha256 = sys.argv[1:]
    try:
        _compile_bundle(Path(bundle_path), Path(native_folder), sha256)
    except ModelError as exc:
        sys.stdout.write(f"{exc}\n")
        return _REFUSED
    except OSError as exc:
        sys.stdout.write(f"the compiled model cannot be kept in {native_folder}: {exc.strerror}\n")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
