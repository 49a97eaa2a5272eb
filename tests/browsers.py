"""Debian's chromium without a window, for the tests of the run's page and for what measures it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,1000",
)  # fmt: skip
PATIENCE = 60  # seconds, on a machine that does other things too


@contextmanager
def started_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own in the folder ``profile``; what its console says can be read."""
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in found.items() if path is None]
    assert not missing, (
        f"{', '.join(missing)}: not installed. bash scripts/test.sh installs them, or apt-get install chromium chromium-driver"
    )
    options = webdriver.ChromeOptions()
    options.binary_location = str(found["chromium"])
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    os.environ["SE_OFFLINE"] = "true"  # selenium's manager asks the network for drivers; this one is named
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(found["chromedriver"])))
    try:
        driver.set_page_load_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()
