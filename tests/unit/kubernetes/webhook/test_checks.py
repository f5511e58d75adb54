"""What the cluster is asked about a pod, whatever it answers first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from credspec.errors import CredspecError
from credspec.kubernetes.webhook.checks import check_new_pod
from support.webhook.reviews import SimulatedCluster, gmsa

SPECS = ("first", "second", "third")


class Slow(SimulatedCluster):
    """One that answers about the specs in the order of `order`."""

    order: tuple[str, ...] = SPECS

    async def credential_spec(self, name: str) -> dict[str, Any] | None:
        for _ in range(10 * self.order.index(name)):
            await asyncio.sleep(0)
        return await super().credential_spec(name)


def pod() -> dict[str, Any]:
    volumes = [
        {
            "name": name,
            "csi": {"driver": "credspec.dev", "volumeAttributes": {"credentialSpecName": name}},
        }
        for name in SPECS
    ]
    return {"metadata": {}, "spec": {"serviceAccountName": "web", "volumes": volumes}}


@pytest.mark.parametrize("order", [SPECS, SPECS[::-1]])
async def test_the_first_spec_that_is_wrong_is_the_reason_whatever_is_answered_first(
    order: tuple[str, ...],
) -> None:
    allowed = {("shop", "web", "first")}
    cluster = Slow({name: gmsa(name) for name in ("first", "second")}, allowed)
    cluster.order = order
    with pytest.raises(CredspecError) as caught:
        await check_new_pod(pod(), "shop", cluster)
    assert caught.value.code == "kubernetes-spec-not-authorized"
    assert '"second"' in str(caught.value)
