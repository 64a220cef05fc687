"""Take the pictures of the page that the documentation shows.

    docker run --rm -p 8080:8080 IMAGE serve
    python scripts/page_pictures.py http://127.0.0.1:8080/

Needs playwright and a Chromium that is on the machine already.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).resolve().parent.parent / "docs"
MOST_BYTES = 150_000
PICTURES = {
    "page-light.png": ("light", 1180, 960),
    "page-dark.png": ("dark", 1180, 960),
    "page-phone.png": ("light", 360, 1500),
}


def main() -> int:
    """Take them all."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not sys.argv[1:] or chromium is None:
        print(__doc__, file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (scheme, width, height) in PICTURES.items():
            page = browser.new_page(
                color_scheme=scheme,
                reduced_motion="reduce",
                viewport={"width": width, "height": height},
            )
            page.goto(sys.argv[1])
            ask(page)
            page.screenshot(path=DOCS / name)
            page.close()
            size = (DOCS / name).stat().st_size
            print(f"{name}: {size} bytes")
            if size > MOST_BYTES:
                print(f"{name} is too big", file=sys.stderr)
                return 1
        browser.close()
    return 0


def ask(page: Page) -> None:
    """Ask for a prediction, and show it from the form's heading on."""
    page.get_by_role("button", name="Predict").click()
    page.locator("#outputs .answer").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.locator("#try-title").evaluate("node => node.scrollIntoView()")


if __name__ == "__main__":
    sys.exit(main())
