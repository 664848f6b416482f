"""What the documents name is there: links, commands, options, targets, files and recipes."""

import re
from pathlib import Path

import click
import pytest

from tunebook.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def commands(text: str) -> list[str]:
    """Lines of the page's shell blocks, comments and prompts removed, continued lines joined."""
    shell = [body for language, body in BLOCK.findall(text) if language in ("", "bash", "sh", "console")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].removeprefix("$ ").strip() for line in lines if line.strip()]


def test_every_link_into_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_tunebook_command_exists_with_its_options(page):
    for command in commands(page.read_text()):
        found = re.search(r"(?:^|[ /])tunebook +([a-z]+)\b(.*)", command)
        if found is None or "pip install" in command:
            continue
        verb, rest = cli.get_command(None, found[1]), found[2]
        while isinstance(verb, click.Group) and (below := re.match(r" +([a-z]+)\b(.*)", rest)):
            verb, rest = verb.get_command(None, below[1]), below[2]
        assert verb is not None, command
        known = {option for parameter in verb.params for option in getattr(parameter, "opts", ())}
        known |= {option for parameter in verb.params for option in getattr(parameter, "secondary_opts", ())}
        for option in re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", rest):
            assert option in known | {"--help", "-h"}, f"{command}: {option}"


def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page.read_text()):
        found = re.fullmatch(r"make(?: ([a-z-]+))?", command)
        assert found is None or found[1] is None or found[1] in targets, command


def test_every_file_of_ours_that_is_named_is_there(page):
    named = re.findall(
        r"`?((?:benchmarks|scripts|tests|recipes|constraints)/[\w./-]+\.(?:py|yaml|txt|jsonl?|sh)\b)",
        page.read_text(),
    )
    for path in named:
        assert (ROOT / path).exists(), path
