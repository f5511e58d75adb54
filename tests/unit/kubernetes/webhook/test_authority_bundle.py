"""The authorities that are published while replicas change: none that is in use is missing."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.kubernetes.webhook.authority_bundle import bundle_to_publish
from credspec.kubernetes.webhook.certificates import (
    AUTHORITY_LIFE,
    PUBLISHED_FOR,
    Certificates,
    renewed,
)
from credspec.kubernetes.webhook.serving_certificate import CertificateSecret
from support.webhook.certificates import SimulatedConfigurations, is_trusted, shake_hands

NAMES = ["credspec-webhook.credspec.svc", "credspec-webhook.credspec"]
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def published(used: Certificates, before: bytes, now: datetime) -> bytes:
    encoded = base64.b64encode(before).decode()
    return base64.b64decode(bundle_to_publish(used, encoded, now))


def test_the_old_authority_stays_beside_a_new_one_for_an_hour() -> None:
    now = datetime.now(UTC)
    old = renewed(None, NAMES, now - timedelta(days=3))
    new = renewed(None, NAMES, now)
    both = published(new, old.bundle, now)
    assert both == new.bundle + old.bundle
    for each in (new, old):
        shake_hands(both, each.certificate, each.key, NAMES[0])
    assert published(new, both, now + PUBLISHED_FOR - MINUTE) == both
    assert published(new, both, now + PUBLISHED_FOR) == new.bundle


def test_a_replica_that_has_not_seen_the_new_one_leaves_it_there() -> None:
    old, new = renewed(None, NAMES, NOW - timedelta(days=3)), renewed(None, NAMES, NOW)
    assert published(old, new.bundle + old.bundle, NOW) == old.bundle + new.bundle


def test_one_that_has_expired_is_not_kept() -> None:
    old, new = renewed(None, NAMES, NOW - AUTHORITY_LIFE), renewed(None, NAMES, NOW)
    assert published(new, old.bundle, NOW) == new.bundle


def test_not_more_than_eight_others_are_kept() -> None:
    bundle = b""
    for number in range(12):
        made = renewed(None, NAMES, NOW + MINUTE * number)
        bundle = published(made, bundle, NOW + MINUTE * number)
    assert bundle.count(b"BEGIN CERTIFICATE") == 9


@pytest.mark.parametrize("text", ["", "?", "AAAA", base64.b64encode(b"-----BEGIN x").decode()])
def test_what_is_no_bundle_is_replaced(text: str) -> None:
    made = renewed(None, NAMES, NOW)
    assert base64.b64decode(bundle_to_publish(made, text, NOW)) == made.bundle


@given(st.text())
def test_any_text_may_be_there(text: str) -> None:
    made = renewed(None, NAMES, NOW)
    assert base64.b64decode(bundle_to_publish(made, text, NOW)) == made.bundle


STEPS = st.lists(st.sampled_from(["empty", "first", "second", "hour", "months"]), max_size=12)


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_simulated_what_any_replica_serves_is_always_trusted(steps: list[str]) -> None:
    """Each of two replicas looks at least once an hour; the Secret may be emptied between."""
    api = SimulatedConfigurations()
    clock = [NOW]

    async def no_pause(_: float) -> None:
        pass

    source = CertificateSecret(
        api=api,
        namespace="credspec",
        secret="credspec-webhook",
        names=NAMES,
        configuration="credspec-webhook",
        now=lambda: clock[0],
        sleep=no_pause,
    )
    served: dict[str, bytes] = {}

    async def look(*replicas: str) -> None:
        for name in replicas:
            served[name], _ = await source.current()
            for bundle in {each for bundles in api.bundles.values() for each in bundles}:
                for certificate in served.values():
                    assert is_trusted(base64.b64decode(bundle), certificate, clock[0])

    async def run() -> None:
        await look("first", "second")
        for step in steps:
            if step == "empty":
                api.version += 1
                api.data = {}
            elif step in served:
                await look(step)
            else:
                await look("first", "second")
                clock[0] += timedelta(minutes=61) if step == "hour" else timedelta(days=29)
                await look("second", "first")

    asyncio.run(run())


def test_simulated_a_new_authority_is_served_after_a_pause() -> None:
    """API servers learn of a change by a watch, a moment later."""
    pauses: list[float] = []
    api = SimulatedConfigurations()

    async def pause(seconds: float) -> None:
        assert all(each for bundles in api.bundles.values() for each in bundles)
        pauses.append(seconds)

    source = CertificateSecret(
        api=api,
        namespace="credspec",
        secret="credspec-webhook",
        names=NAMES,
        configuration="credspec-webhook",
        now=lambda: NOW,
        sleep=pause,
    )
    for _ in range(3):
        asyncio.run(source.current())
    assert pauses == [2.0]
