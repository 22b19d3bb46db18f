"""The container's health check: exit code 0 when HEALTH_URL answers 200, else 1 and why.

The image has neither curl nor wget. Only the standard library is imported, as this runs every
ten seconds. A proxy of the environment is not asked: the address is the container's own.
"""

import os
import sys
import urllib.error
import urllib.request


def main() -> str | None:
    """Say what is wrong; None: nothing."""
    url = os.environ["HEALTH_URL"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=4) as answer:
            if answer.status == 200:
                return None
            return f"{url} answered {answer.status}"
    except urllib.error.HTTPError as error:
        return f"{url} answered {error.code}: {error.read(2000).decode(errors='replace')}"
    except OSError as error:
        return f"{url} does not answer: {error}"


if __name__ == "__main__":
    sys.exit(main())
