"""Tokens: one algorithm, our keys, and claims that are meant for us; everything else is nobody's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from api.errors import Unauthorised
from api.tokens import Tokens, make_tokens
from settings import SettingsError, load_settings
from tests.unit.api.conftest import NOWHERE

SECRET = "f0e1d2c3b4a5968778695a4b3c2d1e0f"
AUDIENCE, ISSUER = "churn", "https://id.example"
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
STRANGER = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
WEAK = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)  # noqa: S505 - to be refused
ED = ed25519.Ed25519PrivateKey.generate()


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; None leaves one out."""
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 600,
        "sub": "ada",
        "team": "growth",
        "scopes": ["predict", "batches:read"],
    }
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def reader(**given: str) -> Tokens:
    made = make_tokens(load_settings(NOWHERE | {"JWT_AUDIENCE": AUDIENCE, "JWT_ISSUER": ISSUER, **given}))
    assert made is not None
    return made


def jwk(private: Any, **more: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.OKPAlgorithm
    return {**json.loads(algorithm.to_jwk(private.public_key())), "use": "sig", **more}


def write(path: Path, *keys: Mapping[str, Any]) -> str:
    path.write_text(json.dumps({"keys": list(keys)}))
    return str(path)


@pytest.fixture
def shared() -> Tokens:
    return reader(JWT_SECRET_KEY=SECRET)


@pytest.fixture
def signed(tmp_path: Path) -> Tokens:
    return reader(JWT_ALGORITHM="RS256", JWT_JWKS_FILE=write(tmp_path / "jwks.json", jwk(RSA, kid="1")))


def by_secret(**changed: Any) -> str:
    return jwt.encode(claims(**changed), SECRET, "HS256")


def by_rsa(private: rsa.RSAPrivateKey = RSA, *, headers: Mapping[str, Any] | None = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), private, "RS256", headers={"kid": "1", **(headers or {})})


def refused(tokens: Tokens, text: str, code: str = "invalid_token") -> str:
    with pytest.raises(Unauthorised) as caught:
        tokens.read(text)
    assert caught.value.code == code
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer realm="churn", error="invalid_token"'
    return caught.value.detail


def test_without_a_key_to_verify_with_there_are_no_tokens() -> None:
    assert make_tokens(load_settings(NOWHERE)) is None


def test_a_good_token_says_who_bears_it(shared: Tokens) -> None:
    who = shared.read(by_secret())
    assert (who.id, who.team, who.scopes) == ("jwt:ada", "growth", {"predict", "batches:read"})


@pytest.mark.parametrize(("algorithm", "private"), [("RS256", RSA), ("EdDSA", ED)], ids=["RS256", "EdDSA"])
def test_a_token_is_verified_by_the_file_of_public_keys(tmp_path: Path, algorithm: str, private: Any) -> None:
    tokens = reader(JWT_ALGORITHM=algorithm, JWT_JWKS_FILE=write(tmp_path / "jwks.json", jwk(private, kid="1")))
    assert tokens.read(jwt.encode(claims(), private, algorithm, headers={"kid": "1"})).team == "growth"
    # With a single key there is no need to name it.
    assert tokens.read(jwt.encode(claims(), private, algorithm)).team == "growth"


def test_scopes_may_be_words_of_one_text_and_claims_may_be_called_otherwise() -> None:
    tokens = reader(JWT_SECRET_KEY=SECRET, JWT_SCOPES_CLAIM="scope", JWT_TEAM_CLAIM="groups")
    who = tokens.read(by_secret(team=None, groups="risk", scopes=None, scope="predict models:read"))
    assert (who.team, who.scopes) == ("risk", {"predict", "models:read"})


def test_a_token_without_scopes_may_do_nothing(shared: Tokens) -> None:
    assert shared.read(by_secret(scopes=None)).scopes == set()


def test_the_subject_is_fit_for_a_log(shared: Tokens) -> None:
    assert shared.read(by_secret(sub="a\nb")).id == "jwt:a?b"
    assert len(shared.read(by_secret(sub="x" * 5_000)).id) <= 110
    assert shared.read(by_secret(sub=None)).id == "jwt:nobody"


def test_an_expired_token_is_refused(shared: Tokens) -> None:
    refused(shared, by_secret(exp=int(time.time()) - 60), "token_expired")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"aud": "billing"}, "another audience"),
        ({"aud": ["billing", "crm"]}, "another audience"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"nbf": 2**33}, "not valid yet"),
        ({"iat": 2**33}, "not valid yet"),
        ({"exp": None}, "no exp"),
        ({"aud": None}, "no aud"),
        ({"iss": None}, "no iss"),
        ({"team": None}, "claim team"),
        ({"team": "no/team"}, "claim team"),
        ({"team": ["growth"]}, "claim team"),
        ({"scopes": [1]}, "claim scopes"),
        ({"scopes": {"predict": True}}, "claim scopes"),
    ],
)
def test_claims_that_are_not_for_us_are_refused(shared: Tokens, changed: dict[str, Any], said: str) -> None:
    assert said in refused(shared, by_secret(**changed))


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}."


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_refused(shared: Tokens, signed: Tokens, algorithm: str) -> None:
    refused(shared, unsigned(algorithm))
    refused(signed, unsigned(algorithm))


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(signed: Tokens) -> None:
    formats = [serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1]
    for public in (RSA.public_key().public_bytes(serialization.Encoding.PEM, form) for form in formats):
        said = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': '1'})}.{part(claims())}"
        mac = hmac.digest(public, said.encode(), hashlib.sha256)
        refused(signed, f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_only_the_one_algorithm_is_taken_even_with_the_right_key(signed: Tokens, algorithm: str) -> None:
    refused(signed, jwt.encode(claims(), RSA, algorithm, headers={"kid": "1"}))


def test_a_longer_digest_of_the_right_secret_is_refused(shared: Tokens) -> None:
    refused(shared, jwt.encode(claims(), SECRET * 2, "HS512"))


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": jwk(STRANGER)},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"b64": False},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_header_that_brings_its_own_key_or_rules_is_refused(signed: Tokens, headers: dict[str, Any]) -> None:
    refused(signed, by_rsa(STRANGER, headers=headers))
    refused(signed, by_rsa(RSA, headers=headers))


def test_a_strangers_signature_is_refused(shared: Tokens, signed: Tokens) -> None:
    refused(signed, by_rsa(STRANGER))
    refused(shared, jwt.encode(claims(), SECRET.replace("f", "e"), "HS256"))
    refused(shared, by_secret()[:-3] + "AAA")


def test_a_key_of_another_name_is_refused(tmp_path: Path) -> None:
    tokens = reader(
        JWT_ALGORITHM="RS256", JWT_JWKS_FILE=write(tmp_path / "jwks.json", jwk(RSA, kid="1"), jwk(STRANGER, kid="2"))
    )
    assert tokens.read(by_rsa(STRANGER, headers={"kid": "2"}))
    refused(tokens, by_rsa(STRANGER, headers={"kid": "1"}))
    refused(tokens, by_rsa(RSA, headers={"kid": "3"}))
    refused(tokens, jwt.encode(claims(), RSA, "RS256"))
    refused(tokens, by_rsa(RSA, headers={"kid": "../../etc/passwd"}))


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "a.b.c",
        "....",
        "\N{SNOWMAN}.b.c",
        f"{part({'alg': 'HS256'})}.{part([])}.x",
        f"{part([])}.{part({})}.x",
        "x" * 20_000,
    ],
)
def test_what_is_no_token_is_refused(shared: Tokens, text: str) -> None:
    refused(shared, text)


def test_deep_nesting_is_refused(shared: Tokens) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 5_000).decode()
    refused(shared, f"{deep}.{deep}.x")


def test_the_file_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    tokens = reader(JWT_ALGORITHM="RS256", JWT_JWKS_FILE=write(path, jwk(RSA, kid="1")))
    assert tokens.read(by_rsa())

    def change(what: Callable[[], object]) -> None:
        what()
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1_000_000_000))

    change(lambda: write(path, jwk(STRANGER, kid="2")))
    refused(tokens, by_rsa())
    assert tokens.read(by_rsa(STRANGER, headers={"kid": "2"}))
    change(lambda: path.write_text('{"keys": ['))
    assert tokens.read(by_rsa(STRANGER, headers={"kid": "2"}))
    path.unlink()
    assert tokens.read(by_rsa(STRANGER, headers={"kid": "2"}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JWKS"),
        ("[]", "is no JWKS"),
        ('{"keys": {}}', "holds no key"),
        ('{"keys": [{"kty": "RSA"}]}', "is no JWKS"),
        (json.dumps({"keys": [jwk(ED, kid="1")]}), "is no JWKS"),
        (json.dumps({"keys": [jwk(RSA, kid="1", use="enc")]}), "holds no key"),
        (json.dumps({"keys": [jwk(RSA, kid="1"), jwk(STRANGER, kid="1")]}), "two of the same"),
        (json.dumps({"keys": [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA))]}), "private or a shared key"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "private or a shared key"),
    ],
)
def test_a_file_that_is_not_fit_to_verify_with_stops_the_start(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(SettingsError, match=said):
        reader(JWT_ALGORITHM="RS256", JWT_JWKS_FILE=str(path))


def test_a_short_rsa_key_stops_the_start(tmp_path: Path) -> None:
    path = write(tmp_path / "jwks.json", jwk(RSA, kid="1"), jwk(WEAK, kid="2"))
    with pytest.raises(SettingsError, match="RSA key of less than 2,048 bits"):
        reader(JWT_ALGORITHM="RS256", JWT_JWKS_FILE=path)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"JWT_JWKS_FILE: .* cannot be read"):
        reader(JWT_ALGORITHM="RS256", JWT_JWKS_FILE=str(tmp_path / "nowhere"))
