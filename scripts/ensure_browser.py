"""Make sure that there is a Chromium, in which the tests look at the image's page."""

from __future__ import annotations

import shutil

import debian

_NAMES = ("chromium", "google-chrome")


def main() -> None:
    """Say which browser is used, or that its tests will be skipped."""
    if not any(map(shutil.which, _NAMES)) and debian.may_install():
        debian.install("chromium", "fonts-dejavu-core")
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    print(f"Browser: {found or 'none, so the tests in one are skipped; chromium is enough'}")


if __name__ == "__main__":
    main()
