"""The next step after a failure is true for the reason of the failure."""

import argparse
import os
import pwd
import socket
from pathlib import Path

import pytest

from pki2factl import hints
from pki2fad.errors import AccountExists, BadRequest, BadSeal, Busy, Forbidden, NobodyListens, TimedOut
from pki2fad.host import paths


def after(error: Exception, named: "Path | str | None" = None) -> str:
    hint = hints.after(error, argparse.Namespace(socket=named and str(named)))
    assert hint is not None
    return hint


def test_a_path_that_is_missing_is_called_so(tmp_path: Path) -> None:
    hint = after(NobodyListens(), tmp_path / "nothing")
    assert hint.startswith(f"there is no {tmp_path}/nothing; correct --socket, or start a daemon there with ")


def test_the_variable_is_named_if_the_path_came_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PKI2FAD_SOCKET", str(tmp_path / "nothing"))
    assert "; correct $PKI2FAD_SOCKET, or " in after(NobodyListens())
    assert "; correct --socket, or " in after(NobodyListens(), tmp_path / "other")


def test_a_socket_on_which_nobody_listens_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    assert after(NobodyListens(), path).startswith(f"nobody listens on {path}; correct --socket, or ")


def test_in_a_usual_place_the_usual_daemon_is_to_be_started() -> None:
    hint = after(NobodyListens(), os.path.join(os.path.dirname(paths.SYSTEM_SOCKET), "nothing"))
    assert "correct --socket" not in hint
    assert "start it with" in hint or "init" in hint


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_socket_is_called_so(path: str) -> None:
    assert after(NobodyListens(), path) == f"{path} is not a socket; name the daemon's with --socket"


@pytest.mark.parametrize(
    ("error", "hint"), [(Busy(), "it is busy; try again in a moment"), (TimedOut(), "it is busy or did not ")]
)
def test_a_busy_daemon_is_not_to_be_started(error: Exception, hint: str) -> None:
    assert after(error, "/dev/null").startswith(hint)


def test_a_refusal_for_a_role_shows_the_entry_that_grants_it() -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name
    message = "forbidden: this needs the role 'admin' for all accounts, which uid 7 does not have"
    assert after(Forbidden(message)) == (
        f'an administrator can grant it in pki2fad.toml: [[access]] role = "admin", who = ["{own}"]'
    )


def test_a_refusal_for_another_reason_has_no_entry_to_show() -> None:
    message = "an account gets its user's name, and uid 7 has no name on this system"
    assert hints.after(Forbidden(message), argparse.Namespace()) is None


@pytest.mark.parametrize(
    ("account", "label", "hint"),
    [
        (None, None, "to add an authenticator to it: pki2factl enroll --label LABEL"),
        ("web-ann", None, "to add an authenticator to it: pki2factl enroll --account web-ann --label LABEL"),
        ("web-ann", "main", "give another --label, or remove that authenticator first"),
    ],
)
def test_who_enrols_what_exists_is_shown_the_way(account: str | None, label: str | None, hint: str) -> None:
    options = argparse.Namespace(account=account, label=label, uri_out=None)
    assert hints.after(AccountExists(), options) == hint


def test_a_user_without_a_code_is_told_how_to_give_one() -> None:
    message = "this needs a code of an authenticator of the account"
    assert after(Forbidden(message)) == "type it on a terminal, or give it with --stdin"


def test_a_sealed_seed_for_another_label_may_be_loaded_as_it_is() -> None:
    message = "the sealed seed is for label tablet, not phone; seal it again with --label phone"
    options = argparse.Namespace(cutover=False)
    assert hints.after(BadRequest(message), options) == "to load it for label tablet, leave out --label"


def test_a_backup_for_other_keys_is_opened_with_one_of_them() -> None:
    error = BadSeal("this backup can be opened with the keys SHA256:a, and not with SHA256:b")
    named = argparse.Namespace(key="offline.pem")
    assert hints.after(error, argparse.Namespace(key=None)) == (
        "open it with the private half of one of them: --key PRIVATE.pem"
    )
    assert hints.after(error, named) is None
