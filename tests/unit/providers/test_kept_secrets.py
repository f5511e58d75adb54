from __future__ import annotations

import gc
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import NotPermittedError
from credspec.providers.kept_secrets import KeptSecrets, fingerprint
from credspec.providers.provider import GivenAccount, HostAccount, PluginSource

TEXTS = st.text(max_size=20)


def test_a_secret_is_there_while_somebody_holds_it() -> None:
    kept = KeptSecrets()
    one, two = kept.keep("Pässwörd", "lease1"), kept.keep("Pässwörd", "lease2")
    assert one is two
    kept.drop("lease1")
    assert two.reveal() == "Pässwörd"
    kept.drop("lease2")
    with pytest.raises(NotPermittedError, match="host-account-forgotten"):
        one.reveal()
    # The handle is still known to its user, and works for the next holder.
    assert kept.keep("Pässwörd", "lease3") is one
    assert one.reveal() == "Pässwörd"


def test_one_of_two_secrets_of_a_holder_can_be_dropped() -> None:
    kept = KeptSecrets()
    old, new = kept.keep("old", "lease1"), kept.keep("new", "lease1")
    kept.drop("lease1", but=new)
    assert new.reveal() == "new"
    with pytest.raises(NotPermittedError):
        old.reveal()
    kept.drop("lease1", but=None)
    with pytest.raises(NotPermittedError):
        new.reveal()
    kept.drop("lease1")


def test_its_buffer_is_overwritten() -> None:
    kept = KeptSecrets()
    secret = kept.keep("x" * 50, "lease1")
    with memoryview(secret._buffer) as view:
        # While somebody looks, the buffer cannot be given back, but what was in it is gone.
        with pytest.raises(BufferError):
            kept.drop("lease1")
        assert bytes(view) == bytes(50)


@given(st.lists(st.tuples(st.booleans(), TEXTS, st.integers(0, 3)), max_size=50))
def test_any_sequence_of_holders(steps: list[tuple[bool, str, int]]) -> None:
    kept, held, handles = KeptSecrets(), dict[int, set[str]](), {}
    for keeps, text, holder in steps:
        if keeps:
            handles[text] = kept.keep(text, str(holder))
            held.setdefault(holder, set()).add(text)
        else:
            kept.drop(str(holder))
            held.pop(holder, None)
        for known, handle in handles.items():
            if any(known in texts for texts in held.values()):
                assert handle.reveal() == known
            else:
                with pytest.raises(NotPermittedError):
                    handle.reveal()
    assert len({fingerprint(text) for text in handles}) == len(handles)


def test_handles_are_equal_if_their_secrets_are_and_show_nothing() -> None:
    one, two = KeptSecrets().keep("secret", "a"), KeptSecrets().keep("secret", "b")
    other = KeptSecrets().keep("Secret", "c")
    assert one == two != other
    assert hash(one) == hash(two)
    assert len({str(one), str(other)}) == 2
    assert "secret" not in repr(one) + str(one)
    with pytest.raises(TypeError):
        pickle.dumps(one)


def test_sources_without_their_secret_are_told_apart_by_it() -> None:
    kept = KeptSecrets()
    account = HostAccount("contoso.com", "reader", "password")
    given_account = GivenAccount(account, "contoso.com")
    concealed = given_account.concealed(lambda text: kept.keep(text, "lease1"))
    assert (concealed.account.password, concealed.revealed()) == ("", account)
    assert str(concealed) == str(given_account)
    other = GivenAccount(HostAccount("contoso.com", "reader", "other"), "contoso.com")
    assert other.concealed(lambda text: kept.keep(text, "lease2")) != concealed
    assert given_account.concealed(lambda text: kept.keep(text, "lease3")) == concealed
    source = PluginSource("{x}", "contoso:reader:password")
    hidden = source.concealed(lambda text: kept.keep(text, "lease1"))
    assert (hidden.plugin_input, hidden.input) == ("", "contoso:reader:password")
    assert str(hidden) == str(source)


def test_what_nobody_refers_to_is_forgotten() -> None:
    kept = KeptSecrets()
    kept.keep("secret", "lease1")
    kept.drop("lease1")
    gc.collect()
    assert list(kept._known) == []
