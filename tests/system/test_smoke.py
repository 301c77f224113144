"""The main job, as a user does it first."""

from support.daemon import Daemon, ctl


def test_init_start_generate_and_verify(daemon: Daemon) -> None:
    (daemon.config_dir / "host.pem").unlink()
    made = ctl(daemon.root, "init", "--config-dir", str(daemon.config_dir))
    assert made.returncode == 0, made.stderr
    daemon.start()
    code = daemon.ctl("generate")
    assert code.returncode == 0, code.stderr
    first = daemon.ctl("verify", code.stdout.strip())
    assert (first.stdout, first.returncode) == ("valid\n", 0)
    again = daemon.ctl("verify", code.stdout.strip())
    assert (again.stdout, again.returncode) == ("invalid\n", 1)
    assert daemon.stop() == 0
