# SPDX-License-Identifier: Apache-2.0
"""Which watched processes are one service instance.

Processes belong together when they hold the same listening socket, or are forks of one program
image. The *leader* is the oldest that was ever in the group: its program and environment name the
service. Nobody is renamed when it exits; the group keeps its identity while any member lives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from otelauto.discover.names import Identity
from otelauto.discover.procfs import Image
from otelauto.discover.table import Process

Key = Image | int  # a program image, or the inode of a listening socket


@dataclass(slots=True, eq=False)
class Group:
    """The owner group of listening sockets. ``identity`` is ``None`` until the leader is read."""

    number: int
    leader: tuple[int, int]  # Process.age_order
    identity: Identity | None = None
    members: set[int] = field(default_factory=set)
    keys: set[Key] = field(default_factory=set)


class Groups:
    """All groups, found by what their members share."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Group] = {}
        self._of: dict[int, Group] = {}
        self._created = 0

    def of(self, tgid: int) -> Group | None:
        """The group of a member."""
        return self._of.get(tgid)

    def all(self) -> list[Group]:
        """Every group that has members."""
        return list(dict.fromkeys(self._of.values()))

    def join(self, process: Process, sockets: Iterable[int]) -> Group:
        """Put a process where what it shares says, merging groups that turn out to be one."""
        keys: set[Key] = set(sockets)
        if any(process.stat.image):
            keys.add(process.stat.image)
        found = {group.number: group for key in keys if (group := self._by_key.get(key))}
        if (current := self._of.get(process.tgid)) is not None:
            found[current.number] = current
        if found:
            first, *others = sorted(found.values(), key=lambda group: group.leader)
            for other in others:
                self._merge(first, other)
            group = first
        else:
            self._created += 1
            group = Group(self._created, process.age_order)
        self._add(group, process, keys)
        return group

    def leave(self, tgid: int) -> None:
        """Take a member out; the last one takes the group along."""
        group = self._of.pop(tgid, None)
        if group is None:
            return
        group.members.discard(tgid)
        if not group.members:
            for key in group.keys:
                del self._by_key[key]

    def _add(self, group: Group, process: Process, keys: set[Key]) -> None:
        is_member = process.tgid in group.members
        if process.age_order < group.leader or (
            process.age_order == group.leader and not is_member
        ):
            group.leader = process.age_order
            group.identity = None
        group.members.add(process.tgid)
        group.keys |= keys
        self._of[process.tgid] = group
        for key in keys:
            self._by_key[key] = group

    def _merge(self, into: Group, other: Group) -> None:
        into.members |= other.members
        into.keys |= other.keys
        for tgid in other.members:
            self._of[tgid] = into
        for key in other.keys:
            self._by_key[key] = into
        other.members.clear()
