"""`python -m webapp.healthcheck URL`: exit code 0 where the site answers 200 under its own name. For containers."""

import os
import sys
import urllib.request


def answers(url: str) -> bool:
    # Django answers only to the names in ALLOWED_HOSTS.
    host = os.environ.get("ALLOWED_HOSTS", "127.0.0.1").split(",")[0].lstrip(".*") or "localhost"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=8) as response:
            return bool(response.status == 200)
    except OSError as error:
        print(error, file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
