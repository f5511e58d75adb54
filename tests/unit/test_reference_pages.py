"""The generated pages are what the code says, and every error code that is named exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from credspec.config.host import load_config
from docs_reference import commands, configuration_page, error_codes, errors_page
from docs_reference import man_pages as man_pages_module
from docs_reference.__main__ import DOCS, MAN, PAGES
from docs_reference.error_codes import UnknownCodeError, raised_codes
from docs_reference.man_pages import man_pages

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
DASHED = r"[a-z][a-z0-9]*(?:-[a-z0-9]{2,})+"
FAMILIES = tomllib.loads(errors_page.WORDS.read_text("utf-8"))["families"]
# In brackets in the tests, and not codes: comments for the type checker, and texts made up.
NOT_CODES = {"call-overload", "attr-defined", "arg-type", "union-attr", "no-untyped-def", "no-dc"}
NOT_CODES |= {"method-assign"}


@pytest.fixture(scope="module")
def codes() -> set[str]:
    return {raised.code for raised in raised_codes(FAMILIES)}


def raised_in(tmp_path: Path, source: str) -> list[tuple[str, str, str]]:
    (tmp_path / "module.py").write_text(source, "utf-8")
    return [(each.code, each.found, each.remedy) for each in raised_codes({}, tmp_path)]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run make docs-reference"


def test_codes_that_documents_and_tests_quote_exist(codes: set[str]) -> None:
    quoted = {
        (path.relative_to(ROOT).as_posix(), code)
        for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "tests").rglob("*.py"))
        if path != Path(__file__)
        for code in re.findall(rf"\[({DASHED})\](?!\()", path.read_text("utf-8"))
    }
    assert {each for each in quoted if each[1] not in codes | NOT_CODES} == set()
    assert quoted


def test_codes_that_tests_compare_exist(codes: set[str]) -> None:
    compared = {
        (path.relative_to(ROOT).as_posix(), code)
        for path in (ROOT / "tests").rglob("*.py")
        for code in re.findall(rf'\.code == "({DASHED})"', path.read_text("utf-8"))
    }
    assert {each for each in compared if each[1] not in codes} == set()
    assert compared


def test_codes_that_docstrings_announce_exist(codes: set[str]) -> None:
    announced = {
        (path.relative_to(ROOT).as_posix(), code)
        for path in SOURCES
        for part in re.findall(r"Raises:\n(.*?)\"\"\"", path.read_text("utf-8"), flags=re.DOTALL)
        for code in re.findall(rf"`({DASHED})`", part)
    }
    assert {each for each in announced if each[1] not in codes} == set()
    assert announced


def test_a_code_is_found_through_helpers_and_branches(tmp_path: Path) -> None:
    source = """
WAIT = "wait"
def outer(kind):
    raise inner("b-code", f"too many {kind}")
def inner(code, found, remedy=WAIT):
    return UsageError.of(code, found, remedy=remedy)
def first(flag):
    raise inner("a-code" if flag else "c-code", "nothing", "act")
def second():
    outer("calls")
"""
    assert sorted(raised_in(tmp_path, source)) == [
        ("a-code", "nothing", "act"),
        ("b-code", "too many calls", "wait"),
        ("c-code", "nothing", "act"),
    ]


def test_a_code_that_is_computed_must_be_listed(tmp_path: Path) -> None:
    source = "def f(x):\n    raise UsageError.of(f'code-{x.y}', 'found')\n"
    with pytest.raises(UnknownCodeError, match="code-…"):
        raised_in(tmp_path, source)


def test_a_code_without_a_fix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = error_codes.Raised(code="new-code", found="it is so", module="agent/doors/http/api.py")
    monkeypatch.setattr(errors_page, "raised_codes", lambda _: [found])
    monkeypatch.setattr(errors_page, "WORDS", Path(__file__).with_name("no_words.toml"))
    monkeypatch.setattr(Path, "read_text", lambda *_: "[families]\n")
    with pytest.raises(ValueError, match="new-code"):
        errors_page.errors_page()


def test_a_key_of_the_configuration_needs_words(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [*configuration_page.configuration_keys()]
    new = configuration_page.Key(table="policy", name="new_key", takes="a text")
    monkeypatch.setattr(configuration_page, "configuration_keys", lambda: [*keys, new])
    with pytest.raises(ValueError, match=r"policy\.new_key"):
        configuration_page.configuration_page()


def test_the_sample_of_the_configuration_page_is_read(tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    sample = "\n".join(re.findall(r"^    (.*)$", page, flags=re.MULTILINE))
    path = tmp_path / "config.toml"
    path.write_text(sample, "utf-8")
    config = load_config(path)
    assert config.transport == "ldaps"
    assert config.policy.accounts == ("WebApp*@contoso.com",)


def test_every_command_and_option_is_on_its_page() -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    listed = [context.command_path for context in commands.commands()]
    assert {"credspec check", "credspec setup docker", "credspec lab up"} <= {*listed}
    for context in commands.commands():
        entry = page.partition(f"`{context.command_path}`\n")[2].partition("\n##")[0]
        for parameter in context.command.params:
            for name in parameter.opts:
                shown = name if name.startswith("-") else (parameter.metavar or name.upper())
                assert shown in entry, f"{context.command_path}: {shown}"


@pytest.fixture(scope="module")
def pages_of_commands() -> Mapping[str, str]:
    return man_pages()


def test_man_pages_are_what_the_commands_say(pages_of_commands: Mapping[str, str]) -> None:
    kept = {path.name: path.read_text("utf-8") for path in MAN.iterdir()}
    assert kept == pages_of_commands, "run make docs-reference"


def test_every_command_that_people_type_has_a_man_page(
    pages_of_commands: Mapping[str, str],
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    # Engines start the runtime, kubectl its plug-in; nobody types them.
    started = {"credspec-runtime", "kubectl-credspec"}
    typed = project["project"]["scripts"].keys() - started
    below = {each.command_path.replace(" ", "-") for each in commands.commands()}
    assert pages_of_commands.keys() == {f"{name}.1" for name in typed | below}
    data = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert data == {MAN.relative_to(ROOT).as_posix(): "share/man/man1"}


def test_references_between_man_pages_lead_somewhere(pages_of_commands: Mapping[str, str]) -> None:
    for name, text in pages_of_commands.items():
        for other in re.findall(r"^\.BR (\S+) \(1\)", text, re.MULTILINE):
            assert f"{other}.1".replace("\\-", "-") in pages_of_commands, f"{name}: {other}"


def test_every_option_is_in_the_man_page_as_it_is_typed(
    pages_of_commands: Mapping[str, str],
) -> None:
    for context in commands.commands():
        page = pages_of_commands[f"{context.command_path.replace(' ', '-')}.1"]
        for parameter in context.command.params:
            for name in parameter.opts:
                if name.startswith("-"):
                    # A plain hyphen may be shown as one that no program takes for an option.
                    assert name.replace("-", "\\-") in page, f"{context.command_path}: {name}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_has_nothing_against_man_pages() -> None:
    for path in sorted(MAN.iterdir()):
        shown = subprocess.run(
            ["groff", "-man", "-ww", "-Tascii", "-P-c", str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == "", path.name
        assert "credspec" in shown.stdout


@pytest.mark.parametrize("text", [".SH is text", "'br is text", "a\\fBb", "--path ./x", "`.so x`"])
def test_texts_of_commands_are_no_markup(text: str) -> None:
    lines = list(man_pages_module._texts([commands.Paragraph(text)]))
    assert not [line for line in lines if line.startswith((".", "'"))]
    assert "-" not in re.sub(r"\\-", "", "".join(lines))
