"""The host's key and its passphrase as systemd passes them: in plain, and sealed by systemd-creds."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import code_of
from support.documents import MANUAL, block
from support.installed import Installed
from support.tpm import software_tpm

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

SEED = b"a seed of the credential tests.."
PASSPHRASE = "correct horse"
KEY = "/etc/pki2fad/host.pem"
SEALED = "/etc/credstore.encrypted/pki2fad.host.pem"
SEALED_PASSPHRASE = "/etc/credstore.encrypted/pki2fad.host.passphrase"
DROP_IN = "/etc/systemd/system/pki2fad.service.d/10-credential.conf"
HOST_SECRET = "/var/lib/systemd/credential.secret"


@pytest.fixture
def host(layer: Path, host_key: PrivateKey) -> Iterator[Installed]:
    """A host whose systemd would use a TPM that listens on /run/share/tpm."""
    with Installed("credential", layer, SYSTEMD_TPM2_DEVICE="swtpm:path=/run/share/tpm") as host:
        host.prepare(host_key, default=SEED)
        yield host


@pytest.fixture
def protected(host: Installed, host_key: PrivateKey) -> Installed:
    """The host, with a passphrase on its key."""
    host.write(KEY, rsakeys.private_pem(host_key, PASSPHRASE.encode()).decode(), mode=0o600)
    return host


def serves(host: Installed) -> bool:
    made = json.loads(host.ctl("generate", "--json"))
    return made["code"] == code_of(SEED, made["step"])


def seal(host: Installed, *options: str, passphrase: str | None = None) -> str:
    """What `pki2factl credential` prints, with the TPM at hand."""
    device = "SYSTEMD_TPM2_DEVICE=swtpm:path=/run/share/tpm"
    return host.run("env", device, "pki2factl", "credential", *options, input=passphrase).stdout


def restart(host: Installed, *, check: bool = True) -> int:
    host.run("systemctl", "daemon-reload")
    return host.systemctl("restart", check=check).returncode


def pass_passphrase(host: Installed, text: str) -> None:
    host.write("/etc/pki2fad/passphrase", text, mode=0o600)
    host.drop_in("[Service]\nLoadCredential=host.passphrase:/etc/pki2fad/passphrase\n")


def test_the_key_is_a_credential_that_nobody_else_can_read(host: Installed) -> None:
    host.systemctl("start")
    assert serves(host)
    directory = "/run/credentials/pki2fad.service"
    assert host.path(f"{directory}/host.pem").read_text() == host.path(KEY).read_text()
    for user in ("nobody", "daemon"):
        assert host.run("runuser", "-u", user, "--", "ls", directory, check=False).returncode != 0


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_protected_key_is_opened_with_the_credential(protected: Installed, end: str) -> None:
    pass_passphrase(protected, PASSPHRASE + end)
    protected.systemctl("start")
    assert serves(protected)
    assert protected.show("StatusText").startswith("1 account")
    assert not [line for line in protected.messages() if PASSPHRASE in line or "locked" in line]


def test_unlock_takes_the_credential_again(protected: Installed) -> None:
    pass_passphrase(protected, PASSPHRASE)
    protected.systemctl("start")
    protected.ctl("lock")
    assert protected.run("pki2factl", "generate", check=False).returncode == 5
    assert protected.ctl("unlock") == "unlocked"
    assert serves(protected)


def test_without_a_passphrase_it_starts_locked(protected: Installed) -> None:
    protected.systemctl("start")
    assert "locked" in protected.show("StatusText")
    assert protected.run("pki2factl", "generate", check=False).returncode == 5
    protected.run("pki2factl", "unlock", "--stdin", input=PASSPHRASE)
    assert serves(protected)


def test_with_a_wrong_passphrase_it_starts_locked_and_says_so(protected: Installed) -> None:
    pass_passphrase(protected, "another horse")
    protected.systemctl("start")
    reason = "the credential host.passphrase does not open the key"
    assert reason in protected.show("StatusText")
    (said,) = [entry for entry in protected.journal() if entry["MESSAGE"].startswith("locked ")]
    assert "is not that of the credential host.passphrase" in said["MESSAGE"]
    assert said["PRIORITY"] == "4"
    refused = protected.run("pki2factl", "unlock", check=False)
    assert "a passphrase is needed" in refused.stderr
    protected.run("pki2factl", "unlock", "--stdin", input=PASSPHRASE)
    assert serves(protected)
    assert reason not in protected.show("StatusText")
    assert not [line for line in protected.messages() if "horse" in line]


@pytest.mark.parametrize("sealed_with", ["host", "tpm2", "host+tpm2"])
def test_the_key_is_sealed_and_the_plain_one_destroyed(host: Installed, sealed_with: str) -> None:
    with software_tpm(host.share) if "tpm2" in sealed_with else contextlib.nullcontext():
        printed = seal(host, "--apply", f"--with={sealed_with}")
        assert printed.splitlines() == [f"made {SEALED}", f"made {DROP_IN}"]
        assert host.path(SEALED).stat().st_mode & 0o777 == 0o600
        assert "PRIVATE KEY" not in host.path(SEALED).read_text()
        assert host.path(KEY).exists()
        assert seal(host, "--shred") == f"removed {KEY}\n"
        assert not host.path(KEY).exists()
        restart(host)
        assert serves(host)
        host.systemctl("stop")
        # What it is sealed to has to be there.
        if "host" in sealed_with:
            host.path(HOST_SECRET).rename(host.path(f"{HOST_SECRET}.away"))
            assert restart(host, check=False) != 0
            host.path(f"{HOST_SECRET}.away").rename(host.path(HOST_SECRET))
        else:
            assert not host.path(HOST_SECRET).exists()
            restart(host)
            host.systemctl("stop")
    if "tpm2" in sealed_with:
        assert restart(host, check=False) != 0


@pytest.mark.parametrize("sealed_with", ["host", "host+tpm2"])
def test_a_protected_key_is_sealed_with_its_passphrase(protected: Installed, sealed_with: str) -> None:
    with software_tpm(protected.share):
        printed = seal(
            protected, "--apply", f"--with={sealed_with}", "--shred", "--stdin", passphrase=PASSPHRASE
        )
        made = [f"made {path}" for path in (SEALED, SEALED_PASSPHRASE, DROP_IN)]
        assert printed.splitlines() == [*made, f"removed {KEY}"]
        restart(protected)
        assert serves(protected)


def test_what_it_prints_is_a_script_that_does_it(host: Installed) -> None:
    script = seal(host, "--with=host")
    assert not host.path(SEALED).exists()
    assert not host.path(DROP_IN).exists()
    host.systemctl("start", "pki2fad.socket")
    host.sh(script)
    assert serves(host)
    seal(host, "--shred")
    host.systemctl("restart")
    assert serves(host)
    assert host.run("stat", "--format=%a %U", SEALED).stdout == "600 root\n"


def test_the_script_for_a_protected_key_asks_for_the_passphrase(protected: Installed) -> None:
    script = seal(protected, "--with=host")
    asked = "systemd-ask-password -n 'Passphrase of the key:'"
    assert asked in script
    protected.systemctl("start", "pki2fad.socket")
    protected.sh(script.replace(asked, f"printf '{PASSPHRASE}'"))
    assert serves(protected)
    assert json.loads(seal(protected, "--json"))["files"] == [SEALED, SEALED_PASSPHRASE, DROP_IN]


def test_a_wrong_passphrase_is_noticed_before_anything_is_made(protected: Installed) -> None:
    done = protected.run("pki2factl", "credential", "--apply", "--stdin", input="another horse", check=False)
    assert done.returncode == 6
    assert "the passphrase does not open" in done.stderr
    assert not protected.path(SEALED).exists()
    assert not protected.path(DROP_IN).exists()


def test_without_a_tpm_nothing_is_made_and_nothing_removed(host: Installed) -> None:
    done = host.run("pki2factl", "credential", "--apply", "--with=tpm2", "--shred", check=False)
    assert done.returncode == 6
    assert "systemd-creds encrypt failed" in done.stderr
    assert host.path(KEY).exists()
    assert not host.path(DROP_IN).exists()


def test_the_script_stops_where_a_step_fails(host: Installed) -> None:
    host.systemctl("start")
    before = host.pid
    script = seal(host, "--with=tpm2")
    assert host.run("sh", input=script, check=False).returncode != 0
    assert not host.path(DROP_IN).exists()
    assert host.pid == before


def test_a_key_that_was_not_sealed_is_not_destroyed(host: Installed, other_key: PrivateKey) -> None:
    assert host.run("pki2factl", "credential", "--shred", check=False).returncode == 6
    seal(host, "--apply")
    host.write(KEY, rsakeys.private_pem(other_key).decode(), mode=0o600)
    done = host.run("pki2factl", "credential", "--shred", check=False)
    assert f"{SEALED} holds another host.pem" in done.stderr
    assert host.path(KEY).exists()


def test_the_steps_of_the_manual_seal_a_key_and_rotate_it(host: Installed) -> None:
    host.write("/etc/pki2fad/host.pub.pem", host.run("openssl", "pkey", "-in", KEY, "-pubout").stdout)
    host.systemctl("start")
    host.sh(block(MANUAL, "command: credential"))
    assert serves(host)
    assert not host.path(KEY).exists()
    before = host.ctl("recipients", "list")
    host.sh(block(MANUAL, "command: rotate sealed"))
    assert serves(host)
    assert not host.path(KEY).exists()
    assert host.ctl("recipients", "list") != before
