"""The compiled file: private, whole, and used only for the model, processor and versions that it was made for."""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scoring import native
from scoring.errors import EngineUnavailable
from scoring.manifest import check_version
from scoring.native import FOLDER, identity_of, path_of, read_native, write_native

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")

CODE = b"\x7fELF\n machine code \n" * 50


@pytest.fixture
def identity() -> dict[str, str]:
    return dict(identity_of("a" * 64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / FOLDER


@pytest.fixture
def path(folder: Path, identity: dict[str, str]) -> Path:
    """A file that was written well."""
    write_native(folder, identity, CODE)
    return path_of(folder, identity)


def refused(folder: Path, identity: dict[str, str]) -> str:
    with pytest.raises(EngineUnavailable) as caught:
        read_native(folder, identity)
    return caught.value.code


def test_what_was_written_is_read(folder: Path, path: Path, identity: dict[str, str]) -> None:
    assert read_native(folder, identity) == CODE


def test_only_its_owner_may_touch_it_whatever_the_umask(folder: Path, identity: dict[str, str]) -> None:
    before = os.umask(0)
    try:
        path = write_native(folder, identity, CODE)
    finally:
        os.umask(before)
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (0o700, 0o600)


def test_no_model_can_have_the_folders_name() -> None:
    with pytest.raises(ValueError, match="model version"):
        check_version(FOLDER)


def test_the_identity_names_all_that_machine_code_depends_on(identity: dict[str, str]) -> None:
    assert identity.keys() == {
        *("format", "model_sha256", "machine", "cpu", "cpu_features_sha256", "llvm", "lleaves", "llvmlite"),
    }
    assert all(identity.values())


@pytest.mark.parametrize("name", ["format", "model_sha256", "machine", "cpu", "cpu_features_sha256", "llvm", "lleaves"])
def test_a_file_made_for_something_else_is_not_used(folder: Path, path: Path, identity: dict[str, str], name: str) -> None:
    other = identity | {name: identity[name][:-1] + "?"}
    assert refused(folder, other) == "not_compiled"
    path.rename(path_of(folder, other))
    assert refused(folder, other) == "altered_file"


@pytest.mark.parametrize("place", [-1, -500])
def test_a_flipped_bit_is_found(folder: Path, path: Path, identity: dict[str, str], place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert refused(folder, identity) == "altered_file"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]\n", b"\xff\n", b"7\n", CODE])
def test_what_is_no_compiled_file_is_damaged(folder: Path, path: Path, identity: dict[str, str], content: bytes) -> None:
    path.write_bytes(content)
    assert refused(folder, identity) == "altered_file"


def test_a_file_cut_short_is_damaged(folder: Path, path: Path, identity: dict[str, str]) -> None:
    os.truncate(path, path.stat().st_size - 1)
    assert refused(folder, identity) == "altered_file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o611])
def test_a_file_open_to_others_is_not_used(folder: Path, path: Path, identity: dict[str, str], mode: int) -> None:
    path.chmod(mode)
    assert refused(folder, identity) == "unsafe_file"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_a_folder_open_to_others_is_neither_read_nor_written(
    folder: Path, path: Path, identity: dict[str, str], mode: int
) -> None:
    folder.chmod(mode)
    assert refused(folder, identity) == "unsafe_file"
    with pytest.raises(EngineUnavailable, match="is open to other users"):
        write_native(folder, identity, CODE)


def test_another_users_file_is_not_used(
    folder: Path, path: Path, identity: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.os, "geteuid", lambda: path.stat().st_uid + 1)
    assert refused(folder, identity) == "unsafe_file"


def test_links_are_not_followed(folder: Path, path: Path, identity: dict[str, str], tmp_path: Path) -> None:
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    assert refused(folder, identity) == "unsafe_file"
    path.unlink()
    path.mkdir(mode=0o700)
    assert refused(folder, identity) == "unsafe_file"


def test_a_pipe_is_not_waited_for(folder: Path, path: Path, identity: dict[str, str]) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)
    assert refused(folder, identity) == "unsafe_file"


def test_a_linked_folder_is_not_used(folder: Path, path: Path, identity: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(EngineUnavailable, match="is not a folder"):
        read_native(tmp_path / "link", identity)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    folder: Path, path: Path, identity: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_native(folder, identity, b"new")
    assert read_native(folder, identity) == CODE
    assert list(folder.iterdir()) == [path]


def test_writers_at_once_leave_one_whole_file(folder: Path, identity: dict[str, str]) -> None:
    codes = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda code: write_native(folder, identity, code), codes))
    assert read_native(folder, identity) in codes
    assert len(list(folder.iterdir())) == 1


def test_a_missing_compiler_is_told_by_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(EngineUnavailable, match="compiler is not installed") as caught:
        identity_of("a" * 64)
    assert caught.value.code == "missing_compiler"
