"""The product's user of Redis: it may use the queues; it may not empty the server, set it, or read what is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from broker.server import memory_of, persistence_of
from cli.checks.privileges import redis_user_finding
from deploy.local.valkey import USER, Valkey, users

FORBIDDEN = [
    "FLUSHALL",
    "FLUSHDB",
    "SHUTDOWN NOSAVE",
    "KEYS *",
    "SCAN 0",
    "CONFIG GET maxmemory",
    "CONFIG SET maxmemory 1",
    "DEBUG SLEEP 0",
    "ACL LIST",
    "ACL SETUSER churn +@all",
    "CLIENT KILL TYPE normal",
    "REPLICAOF 127.0.0.1 1",
    "MODULE LIST",
    "FUNCTION LIST",
    "SAVE",
    "BGREWRITEAOF",
    "SLOWLOG GET",
    "MONITOR",
    "SWAPDB 0 1",
    "EVAL \"return redis.call('FLUSHALL')\" 0",
    # Keys and channels of somebody else.
    "GET theirs",
    "SET theirs 1",
    "PUBLISH theirs 1",
    "SUBSCRIBE theirs",
    "PSUBSCRIBE *",
]


@pytest.fixture
def user(valkey: Valkey, redis_number: int) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(valkey.user_url(redis_number))) as client:
        yield client
    # What was refused here is no sign that the product lacks anything.
    with closing(redis.Redis.from_url(valkey.url())) as admin:
        admin.acl_log_reset()


@pytest.mark.parametrize("command", FORBIDDEN)
def test_it_may_not(user: redis.Redis, command: str) -> None:
    words = ["EVAL", "return redis.call('FLUSHALL')", "0"] if command.startswith("EVAL") else command.split()
    with pytest.raises(
        (redis.exceptions.NoPermissionError, redis.ResponseError),
        match=r"(?i)no permissions|acl failure|DEBUG command not allowed",
    ):
        user.execute_command(*words)


def test_it_is_told_what_the_checks_at_the_start_ask(user: redis.Redis) -> None:
    assert memory_of(user).policy == "noeviction"
    assert persistence_of(user).has_append_only_file


def test_the_doctor_finds_nothing_in_it(user: redis.Redis) -> None:
    assert redis_user_finding(user).level == "ok"


def test_the_doctor_warns_of_a_user_who_may_do_everything(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as admin:
        found = redis_user_finding(admin)
    assert found.level == "warning"
    assert "FLUSHALL, CONFIG, KEYS, DEBUG, SHUTDOWN" in found.said


@pytest.mark.parametrize(
    ("rights", "level"),
    [("+@all -acl", "warning"), ("+@all -acl -config", "ok"), ("-@all +ping +acl|whoami +acl|dryrun", "ok")],
)
def test_the_doctor_of_a_user_who_may_not_ask(valkey: Valkey, user: redis.Redis, rights: str, level: str) -> None:
    with closing(redis.Redis.from_url(valkey.url())) as admin:
        admin.execute_command("ACL", "SETUSER", "curious", "on", ">secret", *rights.split())
        try:
            with closing(redis.Redis.from_url(valkey.url().replace(f":{valkey.password}@", "curious:secret@"))) as curious:
                assert redis_user_finding(curious).level == level
        finally:
            admin.execute_command("ACL", "DELUSER", "curious")


def test_the_file_holds_the_password_s_hash_alone_and_no_category() -> None:
    line = users("s3cret")
    assert line.startswith(f"user {USER} on #")
    assert "s3cret" not in line
    assert "+@" not in line
    assert "allkeys" not in line
