"""How long a whole `pki2factl pam` takes, over an empty interpreter; ends with 1 above 3.5 times. As root.

.venv/bin/python -P tests/benchmarks/pam.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.daemon import Daemon, short_directory
from support.logins import PAM, host_with

from pki2fad.crypto import rsakeys, sealing

ROUNDS = 40
MOST = 3.5
USERS = [f"user{number}" for number in range(2 * ROUNDS)]  # a code is good once
WAYS = {
    "python3 -c pass": ["/usr/bin/python3", "-c", "pass"],
    "python -I -m pki2factl pam": PAM,
}


def main() -> None:
    key = rsakeys.generate_key(3072)
    with short_directory() as path:
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(key))
        public = key.public_key()
        with host_with(daemon, lambda seed: sealing.seal_seed(public, bytearray(seed)), *USERS) as host:
            daemon.start()
            times: dict[str, list[float]] = {name: [] for name in WAYS}
            users = iter(USERS)
            for _ in range(ROUNDS):
                for name, command in WAYS.items():
                    user = next(users) if "pam" in name else USERS[0]
                    # nsenter is in all of them; it takes about 1 ms
                    begun = time.perf_counter()
                    done = subprocess.run(
                        [*host.mounts.enter, *command],
                        env={"PAM_TYPE": "auth", "PAM_USER": user, "PAM_RHOST": "192.0.2.1"},
                        input=host.code(user, 1).encode(),
                        check=False,
                    )
                    times[name].append(time.perf_counter() - begun)
                    assert done.returncode == 0, name
            least = statistics.median(times["python3 -c pass"])
            for name, taken in times.items():
                median = statistics.median(taken)
                print(f"{name:28} {median * 1e3:6.1f} ms {median / least:5.2f}")
            daemon.stop()
            daemon.close()
            if statistics.median(times["python -I -m pki2factl pam"]) > MOST * least:
                sys.exit(f"more than {MOST} times")


if __name__ == "__main__":
    main()
