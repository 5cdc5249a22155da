"""The runbook: a section for every alert and every complaint of the guide, and commands that work."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import redis
from sqlalchemy import Engine, text

from cli.main import churn
from tests.ops.ruleset import NOT_YET, RUNBOOK, alerts, is_exported, names_in, recorded

COMPLAINTS = ("high-memory", "database-connections", "slow-queries", "model-degradation", "a-stuck-queue", "redis-is-full")
PARTS = ("**Seen.**", "**Means.**", "**Look.**", "**Mend.**", "**Over when**")

TEXT = RUNBOOK.read_text()
SECTIONS = {found[1]: found[2] for found in re.finditer(r"^### (.+)\n((?:(?!^##).*\n)*)", TEXT, re.MULTILINE)}
BLOCKS = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"^    .*$", "", TEXT, flags=re.MULTILINE))]
COMMANDS = [*BLOCKS, *SPANS]
SEPARATORS = re.compile(r"\s+\|\s+|;\s+do(?:ne)?\b\s*|\$\((?=redis)|\)\"(?=; done)")


def anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def begun_by(*words: str) -> list[str]:
    """The commands, also within a pipe or a loop, that begin with these words; without their comments."""
    parts = [part for command in COMMANDS for part in SEPARATORS.split(command)]
    return sorted({part.split("  #")[0].strip() for part in parts if part.startswith(words)})


@pytest.mark.parametrize("name", sorted({alert.name for alert in alerts()}))
def test_every_alert_has_a_section_that_says_all_of_it(name: str) -> None:
    section = SECTIONS[name]
    assert [part for part in PARTS if part not in section] == []
    places = [section.index(part) for part in PARTS]
    assert places == sorted(places)
    assert re.search(r"^    \S", section, re.MULTILINE), "it has no command"


def test_every_section_is_about_an_alert_or_a_complaint() -> None:
    headings = {anchor(heading) for heading in SECTIONS}
    assert headings == {alert.name.lower() for alert in alerts()} | set(COMPLAINTS)


def test_every_link_within_leads_somewhere() -> None:
    anchors = {anchor(heading) for heading in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
    for page, place in re.findall(r"\]\(([a-z]+\.md)(?:#([^)]+))?\)", TEXT):
        beside = (RUNBOOK.parent / page).read_text()
        headings = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", beside, re.MULTILINE)}
        assert not place or place in headings, (page, place)


@pytest.mark.parametrize("command", begun_by("churn "))
def test_every_command_of_ours_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    found: click.Command = churn
    while isinstance(found, click.Group):
        context = click.Context(found)
        following = found.get_command(context, words[0])
        assert following is not None, command
        found, words = following, words[1:]
    # Files and batches of an example need not be there; options and their values must.
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("command", [command for command in begun_by("psql ") if " -c " in command])
def test_every_question_to_the_database_can_be_asked(command: str, engine: Engine) -> None:
    [address, flag, question] = shlex.split(command)[1:]
    assert address in {"$DATABASE_OWNER_URL", "$SUPER"}
    assert flag == "-c"
    with engine.connect() as conn:
        conn.execute(text(question.replace("BATCH", "none-such")))


@pytest.mark.parametrize("command", begun_by("redis "))
def test_every_question_to_redis_is_one_that_our_user_may_ask(command: str, redis_user_url: str) -> None:
    words = shlex.split(command.replace("batches.$queue", "batches.high").replace("$queue", "webhooks"))
    with redis.Redis.from_url(redis_user_url) as client:
        client.execute_command(*words[1:])


def expressions() -> list[str]:
    return sorted({shlex.split(command)[4] for command in begun_by("promtool query instant")})


@pytest.mark.parametrize("expr", expressions())
def test_every_expression_parses_and_names_what_is_exported_or_recorded(expr: str, promtool: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(f"groups: [{{name: runbook, rules: [{{record: x, expr: {_quoted(expr)}}}]}}]")
    subprocess.run([promtool, "check", "rules", rules], check=True, capture_output=True, timeout=60)
    own = {name for name in names_in(expr) if name.startswith(("churn_", "ml_"))}
    assert {name for name in own if not is_exported(name)} <= NOT_YET
    assert {name for name in names_in(expr) if ":" in name} <= set(recorded())


def _quoted(expr: str) -> str:
    return "'" + expr.replace("'", "''") + "'"
