# SPDX-License-Identifier: Apache-2.0
"""Which service a process id belongs to, and for how long."""

from __future__ import annotations

from otelauto.discover.names import Identity
from otelauto.discover.watch import Target
from otelauto.services import LINGER_S, Services


def target(tgid: int, group: int = 1, **attributes: str) -> Target:
    identity = Identity("shop", "", f"host:{group}", "python", attributes)
    return Target(
        tgid=tgid, starttime=1, executable="/shop", deleted=False, summary="shop", netns=1,
        reason="pid", ports=(), paths=(), group=group, identity=identity,
    )  # fmt: skip


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_workers_of_a_group_are_one_service() -> None:
    services = Services()
    assert services.add(target(1)) is services.add(target(2))
    assert services.add(target(3, group=3)) is not services.of(1)


def test_a_service_described_anew_is_another_object() -> None:
    services = Services()
    old = services.add(target(1, **{"service.version": "1"}))
    new = services.add(target(1, **{"service.version": "2"}))
    assert new is services.of(1) is not old
    assert new.attributes["service.version"] == "2"
    assert services.expire() == []


def test_a_process_that_is_gone_keeps_its_service_for_its_last_records() -> None:
    clock = Clock()
    services = Services(clock)
    service = services.add(target(1))
    services.remove(1)
    assert services.of(1) is service
    assert services.expire() == []
    clock.now += LINGER_S + 1
    assert services.expire() == [service]
    assert services.of(1) is None
    assert services.of(2) is None
