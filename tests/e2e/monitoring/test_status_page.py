"""``credspec status --web`` of a real agent in a real browser; makes screenshots for documents."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.errors import CredspecError
from credspec.lab.domain import Lab
from support.agent.agent_process import BIN, AgentProcess

ROOT = Path(__file__).parents[3]
AXE = ROOT / ".venv/applications/node/node_modules/axe-core/axe.min.js"
# `make screenshots` lets them be written to where the documents have them.
SCREENSHOTS = Path(os.environ.get("CREDSPEC_SCREENSHOTS") or ROOT / "build/screenshots")
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SIZE: Any = {"width": 1180, "height": 800}
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=OPTIONS)
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport=SIZE, color_scheme="light")
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


@pytest.fixture
def agent(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentProcess]:
    running = AgentProcess(lab, tmp_path)
    monkeypatch.setenv("CREDSPEC_CONFIG", str(running.config))
    path = str(tmp_path / "specs/two.json")
    make_credential_spec(NewSpecRequest(account_name="WebApp02", path=path))
    running.start()
    running.mount(1)
    running.put(1)
    yield running
    running.close()


@pytest.fixture
def address(agent: AgentProcess) -> Iterator[str]:
    command = [str(BIN / "credspec"), "status", "--web", "--interval", "0.2"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as serving:
        assert serving.stdout is not None
        yield serving.stdout.readline().strip()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The page, in which nothing goes wrong while a test lasts."""
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("requestfailed", lambda request: wrong.append(request.url))
    opened.goto(address)
    expect(opened.locator("#pill")).to_have_text("agent is ready")
    yield opened
    assert wrong == []


def rows(page: Page, part: str) -> Any:
    return page.locator(f"#{part}-rows tr")


def violations(page: Page) -> list[str]:
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found["violations"]]


def test_it_shows_what_happens_as_it_happens(page: Page, agent: AgentProcess) -> None:
    expect(rows(page, "identity")).to_have_count(1)
    expect(rows(page, "identity")).to_contain_text(["webapp01@example.test"])
    expect(rows(page, "identity")).to_contain_text(["acquired again in"])
    expect(rows(page, "container")).to_contain_text(["container1"])
    expect(rows(page, "domain")).to_contain_text(["answers"])
    expect(rows(page, "event").first).to_contain_text("lease-granted")
    agent.mount(2)
    agent.put(2, "file://two.json")
    expect(rows(page, "container")).to_have_count(2)
    expect(rows(page, "identity")).to_contain_text(["webapp01@", "webapp02@"])
    with pytest.raises(CredspecError):
        agent.put(3, "file://missing.json")
    expect(rows(page, "event").first).to_contain_text("lease-denied")
    agent.delete(2)
    expect(rows(page, "container")).to_have_count(1)


def test_it_survives_the_restart_of_the_agent(page: Page, agent: AgentProcess) -> None:
    expect(rows(page, "container")).to_have_count(1)
    agent.end()
    expect(page.locator("#pill")).to_contain_text("agent does not answer")
    expect(page.locator("#notices")).to_contain_text("[agent-unreachable]")
    expect(rows(page, "container")).to_have_count(1)
    agent.start()
    expect(page.locator("#pill")).to_have_text("agent is ready")
    expect(page.locator("#notices")).to_be_empty()
    agent.mount(2)
    agent.put(2, "file://two.json")
    expect(rows(page, "container")).to_have_count(2)


def test_filters(page: Page, agent: AgentProcess) -> None:
    agent.mount(2)
    agent.put(2, "file://two.json")
    with pytest.raises(CredspecError):
        agent.put(3, "file://missing.json")
    expect(rows(page, "event").filter(has_text="lease-denied")).to_have_count(1)
    page.locator("#event-filter").fill("webapp02")
    expect(rows(page, "event")).to_have_count(1)
    expect(rows(page, "event")).to_contain_text(["webapp02@example.test"])
    page.locator("#event-filter").fill("no such thing")
    expect(rows(page, "event")).to_have_text(["No event matches."])
    page.locator("#event-filter").fill("")
    page.locator("#event-kind").select_option("warning")
    expect(rows(page, "event")).to_contain_text(["lease-denied"])
    page.locator("#container-filter").fill("CONTAINER2")
    expect(rows(page, "container")).to_have_count(1)
    expect(page.locator("#container-count")).to_have_text("1 of 2")


def test_the_doctor_runs_on_demand_and_the_page_is_accessible(
    page: Page, agent: AgentProcess
) -> None:
    agent.mount(2)
    agent.put(2, "file://two.json")
    with pytest.raises(CredspecError):
        agent.put(3, "file://missing.json")
    expect(rows(page, "event").first).to_contain_text("lease-denied")
    expect(rows(page, "identity")).to_have_count(2)
    page.evaluate("scrollTo(0, 0)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "status-page.png", full_page=True)
    page.locator("#doctor-identity").select_option("webapp01@example.test")
    page.locator("#doctor-run").click()
    steps = page.locator("#doctor-steps li")
    expect(steps.filter(has_text="permission webapp01")).to_have_count(1, timeout=180_000)
    expect(steps.filter(has_text="host-identity").locator(".badge")).to_have_text("ok")
    expect(page.locator("#doctor-run")).to_be_enabled()
    assert violations(page) == []
    page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert violations(page) == []
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=SCREENSHOTS / "status-page-dark.png")
    for width in (1180, 380):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#identities")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#event-filter")).to_be_focused()
    page.keyboard.type("granted/")
    expect(page.locator("#event-filter")).to_have_value("granted/")
    page.locator("#theme").focus()
    page.keyboard.press("Space")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_without_the_token_it_is_refused(context: BrowserContext, address: str) -> None:
    page = context.new_page()
    place = re.sub(r"\?.*", "", address)
    for refused in (place, f"{place}?token=x", f"{place}feed"):
        answer = page.goto(refused)
        assert answer is not None
        assert answer.status == 403
    assert "credspec status --web" in page.inner_text("body")
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == 200
    expect(page.locator("#pill")).to_have_text("agent is ready")
    page.reload()
    expect(page.locator("#pill")).to_have_text("agent is ready")
    again = context.new_page().goto(address)
    assert again is not None
    assert again.status == 403


def test_a_dark_system_gets_a_dark_page(browser: Browser, address: str) -> None:
    with browser.new_context(color_scheme="dark") as opened:
        page = opened.new_page()
        page.goto(address)
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
