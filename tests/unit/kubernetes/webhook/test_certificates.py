"""The webhook's own certificate: made, kept, renewed in time, and trusted all the while."""

from __future__ import annotations

import asyncio
import base64
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from credspec.errors import CredspecError
from credspec.kubernetes.webhook.certificates import (
    AUTHORITY_LIFE,
    CERTIFICATE_LIFE,
    PUBLISHED_FOR,
    Certificates,
    renewed,
)
from credspec.kubernetes.webhook.serving_certificate import (
    CertificateFiles,
    CertificateSecret,
    ServedCertificate,
)
from support.webhook.certificates import SimulatedConfigurations, is_trusted, shake_hands

NAMES = ["credspec-webhook.credspec.svc", "credspec-webhook.credspec"]
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_the_first_certificate_is_trusted_and_kept() -> None:
    made = renewed(None, NAMES, NOW)
    assert is_trusted(made.bundle, made.certificate, NOW)
    assert renewed(made, NAMES, NOW) is made
    assert renewed(made, NAMES, NOW + CERTIFICATE_LIFE / 2) is made
    leaf = x509.load_pem_x509_certificate(made.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES


def test_a_handshake_succeeds() -> None:
    made = renewed(None, NAMES, datetime.now(UTC))
    shake_hands(made.bundle, made.certificate, made.key, NAMES[0])


def test_it_is_renewed_by_the_same_authority_in_time() -> None:
    made = renewed(None, NAMES, NOW)
    later = NOW + CERTIFICATE_LIFE * 0.7
    new = renewed(made, NAMES, later)
    assert new.certificate != made.certificate
    assert new.bundle == made.bundle
    assert is_trusted(made.bundle, new.certificate, later + CERTIFICATE_LIFE / 2)


@pytest.mark.parametrize("names", [["other.credspec.svc"], NAMES[:1]])
def test_other_names_need_another_certificate(names: list[str]) -> None:
    made = renewed(None, NAMES, NOW)
    assert renewed(made, names, NOW).certificate != made.certificate


@pytest.mark.parametrize("seed", range(3))
def test_whoever_learns_of_a_change_within_an_hour_never_meets_an_unknown_one(seed: int) -> None:
    chance = random.Random(seed)
    now, held = NOW, renewed(None, NAMES, NOW)
    changes = [(now, held)]
    while now < NOW + AUTHORITY_LIFE * 1.5:
        hours = chance.choice([0.01, 0.3, 0.9, 5, 24 * 20, 24 * 40])
        # Replicas look each minute: nothing that is due waits for long.
        while hours > 0.9 and renewed(held, NAMES, now + timedelta(hours=hours)) is not held:
            hours /= 2
        now += timedelta(hours=hours)
        new = renewed(held, NAMES, now)
        if new is not held:
            held = new
            changes.append((now, held))
        assert is_trusted(held.bundle, held.certificate, now)
        assert len(held.authorities) <= 2
        # What was in force at any time of the last hour: the other replica has it still.
        ends = [at for at, _ in changes[1:]] + [now]
        for (_, old), end in zip(changes, ends, strict=True):
            if now - end < PUBLISHED_FOR:
                assert is_trusted(held.bundle, old.certificate, now)
                assert is_trusted(old.bundle, held.certificate, now)
    assert len({each.authorities[0].pem for _, each in changes}) > 1


def test_an_authority_is_replaced_before_it_expires() -> None:
    now, held = NOW, renewed(None, NAMES, NOW)
    first = held.authorities[0]
    while now < NOW + AUTHORITY_LIFE:
        now += timedelta(minutes=40) if len(held.authorities) > 1 else timedelta(days=10)
        held = renewed(held, NAMES, now)
    assert first not in held.authorities


def test_a_clock_that_goes_back_gets_another_certificate() -> None:
    made = renewed(None, NAMES, NOW)
    earlier = NOW - timedelta(days=3)
    again = renewed(made, NAMES, earlier)
    assert is_trusted(again.bundle, again.certificate, earlier)


def test_a_secret_keeps_it() -> None:
    made = renewed(None, NAMES, NOW)
    assert Certificates.from_secret(made.to_secret()) == made


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"tls.crt": "?"},
        {"ca.key": ""},
        {"ca.crt": base64.b64encode(b"x").decode()},
        {"tls.crt": None},
    ],
)
def test_a_secret_without_it_is_as_if_there_were_none(damage: dict[str, Any]) -> None:
    data = renewed(None, NAMES, NOW).to_secret() | damage if damage else {}
    assert Certificates.from_secret(data) is None


def test_a_key_that_does_not_fit_is_replaced() -> None:
    made, other = renewed(None, NAMES, NOW), renewed(None, NAMES, NOW)
    mixed = Certificates(authorities=made.authorities, certificate=made.certificate, key=other.key)
    assert renewed(mixed, NAMES, NOW).key not in {made.key, other.key}


def secret_of(api: SimulatedConfigurations) -> CertificateSecret:
    return CertificateSecret(
        api=api,
        namespace="credspec",
        secret="credspec-webhook",
        names=NAMES,
        configuration="credspec-webhook",
        now=lambda: NOW,
        sleep=no_pause,
    )


async def no_pause(_: float) -> None:
    pass


async def test_simulated_two_replicas_serve_the_same_certificate() -> None:
    api = SimulatedConfigurations()
    found = await asyncio.gather(*(secret_of(api).current() for _ in range(2)))
    assert found[0] == found[1]
    assert api.writes.count("secret") == 1
    bundle = base64.b64encode(Certificates.from_secret(api.data).bundle).decode()  # type: ignore[union-attr]
    assert {each for bundles in api.bundles.values() for each in bundles} == {bundle}
    writes = [*api.writes]
    await secret_of(api).current()
    assert api.writes == writes


async def test_simulated_the_slower_replica_takes_what_the_other_made() -> None:
    api = SimulatedConfigurations()
    other = renewed(None, NAMES, NOW)

    def written_meanwhile() -> None:
        api.version += 1
        api.data = other.to_secret()

    api.before_put = written_meanwhile
    assert await secret_of(api).current() == (other.certificate, other.key)


async def test_simulated_a_configuration_that_was_written_over_is_repaired() -> None:
    api = SimulatedConfigurations()
    await secret_of(api).current()
    api.bundles["mutatingwebhookconfigurations"][1] = "other"
    await secret_of(api).current()
    assert len({*api.bundles["mutatingwebhookconfigurations"]}) == 1


async def test_what_is_served_stays_while_there_is_nothing_new(tmp_path: Any) -> None:
    made = renewed(None, NAMES, NOW)
    files = CertificateFiles(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    reports: list[bytes | CredspecError] = []
    served = ServedCertificate(files, reports.append)
    assert not await served.update()
    assert not served.is_loaded.is_set()
    files.certificate.write_bytes(made.certificate)
    files.key.write_bytes(made.key)
    assert await served.update()
    assert await served.update()
    assert served.is_loaded.is_set()
    files.key.write_bytes(renewed(None, NAMES, NOW).key)
    assert not await served.update()
    assert served.is_loaded.is_set()
    codes = [each.code if isinstance(each, CredspecError) else "" for each in reports]
    assert codes == ["kubernetes-webhook-certificate", "", "kubernetes-webhook-certificate"]
