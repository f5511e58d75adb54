"""A page gets the newest state and each event once, from when it joined."""

from __future__ import annotations

import json
import threading
import time

from credspec.status_page.feed import KEPT_EVENTS, Feed


def test_the_newest_of_each_message_counts() -> None:
    feed = Feed()
    feed.put("state", 1)
    feed.put("doctor", {"running": True})
    feed.put("state", 2)
    seen, messages = feed.after(0, 0)
    assert sorted(messages) == [("doctor", '{"running":true}'), ("state", "2")]
    assert feed.after(seen, 0) == (seen, [])
    feed.put("state", 3)
    assert feed.after(seen, 0)[1] == [("state", "3")]


def test_what_is_as_it_was_is_not_sent_again() -> None:
    feed = Feed()
    feed.put("state", {"a": 1})
    seen, _ = feed.after(0, 0)
    feed.put("state", {"a": 1})
    assert feed.after(seen, 0) == (seen, [])


def test_events_come_once_and_the_last_are_kept_for_new_pages() -> None:
    feed = Feed()
    feed.add_events([1, 2])
    seen, messages = feed.after(0, 0)
    assert messages == [("events", "[1,2]")]
    feed.add_events([3])
    assert feed.after(seen, 0)[1] == [("events", "[3]")]
    feed.add_events(list(range(KEPT_EVENTS)))
    (message,) = feed.after(0, 0)[1]
    assert json.loads(message[1]) == list(range(KEPT_EVENTS))


def test_who_waits_is_woken_by_a_change_and_by_the_end() -> None:
    feed = Feed()
    found: list[object] = []

    def wait() -> None:
        seen, messages = feed.after(0, 60)
        found.append(messages)
        found.append(feed.after(seen, 3600)[1])

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    feed.put("state", 1)
    while not found:
        pass
    feed.close()
    waiting.join(60)
    assert found == [[("state", "1")], []]
    assert feed.is_closed


def test_who_has_seen_all_waits_for_what_comes_next() -> None:
    """Pages that were answered at once would ask again and again."""
    feed = Feed()
    feed.put("state", 1)
    seen, _ = feed.after(0, 0)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(feed.after(seen, 60)[1]))
    waiting.start()
    while not feed._changed._waiters and waiting.is_alive():  # type: ignore[attr-defined]
        time.sleep(0.001)
    feed.put("state", 1)
    assert found == []
    feed.put("state", 2)
    waiting.join(60)
    assert found == [[("state", "2")]]
