"""Stored secrets: sealed under the newest key, readable with each, and of no use without."""

from __future__ import annotations

import pytest

from schemas.secrets import SecretSealed, Vault, is_sealing_key, new_sealing_key, new_secret


def test_a_sealed_secret_shows_nothing_and_is_another_each_time() -> None:
    secret, vault = new_secret(), Vault([new_sealing_key()])
    sealed = [vault.seal(secret) for _ in range(2)]
    assert sealed[0] != sealed[1]
    assert all(secret.removeprefix("whsec_") not in each for each in sealed)
    assert [vault.unseal(each) for each in sealed] == [secret] * 2


def test_the_newest_key_seals_and_the_older_ones_still_open() -> None:
    secret, old, new = new_secret(), new_sealing_key(), new_sealing_key()
    assert Vault([new, old]).unseal(Vault([old]).seal(secret)) == secret
    assert Vault([new]).unseal(Vault([new, old]).seal(secret)) == secret


@pytest.mark.parametrize("keys", [[], [new_sealing_key()]])
def test_without_its_key_it_cannot_be_read(keys: list[str]) -> None:
    with pytest.raises(SecretSealed, match="WEBHOOK_ENCRYPTION_KEY"):
        Vault(keys).unseal(Vault([new_sealing_key()]).seal(new_secret()))


def test_a_changed_one_is_refused() -> None:
    vault = Vault([new_sealing_key()])
    sealed = vault.seal(new_secret())
    with pytest.raises(SecretSealed):
        vault.unseal(sealed[:-4] + ("AAAA" if sealed[-4:] != "AAAA" else "BBBB"))


def test_one_of_before_there_was_a_key_is_read_as_it_is() -> None:
    secret = new_secret()
    assert Vault([]).seal(secret) == secret
    assert Vault([new_sealing_key()]).unseal(secret) == secret


def test_what_is_a_key() -> None:
    assert is_sealing_key(new_sealing_key())
    assert not any(is_sealing_key(text) for text in ("", "hunter2", "A" * 44, new_secret()))
