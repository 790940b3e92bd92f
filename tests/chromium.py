"""Debian's headless Chromium, driven by its own chromedriver: nothing is downloaded."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:")  # addresses that need no network
PROBLEMS = {"SEVERE", "WARNING"}


class Browser:
    """A window. `console` has the warnings and errors of its pages, `requests` the addresses that they requested."""

    def __init__(self, driver):
        self.driver, self.console, self.requests = driver, [], []
        for domain in ("Network.enable", "Accessibility.enable"):
            driver.execute_cdp_cmd(domain, {})

    def open(self, file, width=1280, height=900, phone=False, script=True):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        self.driver.get(file.as_uri())
        return self

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def wait(self, condition):
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 10).until(lambda _: condition())

    def read_logs(self):
        """Appends what the browser logged since the last call to `console` and `requests`."""
        self.console += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in PROBLEMS]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            url = message["params"].get("request", {}).get("url") or message["params"].get("url", "")
            if message["method"] in {"Network.requestWillBeSent", "Network.webSocketCreated"} and not url.startswith(LOCAL):
                self.requests.append(url)
        return self

    def controls(self, whole=bool):
        """(role, name) of every interactive element in the accessibility tree, once `whole` is true of them.

        Chromium builds the tree beside the page: read early, it is a part of it.
        """
        roles = {"button", "link", "checkbox", "combobox", "textbox", "radio", "DisclosureTriangle", "region", "dialog"}

        def read():
            nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
            shown = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in roles]
            found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]
            return whole(found) and found

        return self.wait(read)

    def screenshot(self, file):
        self.driver.save_screenshot(str(file))


@contextmanager
def browser():
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs a browser: Debian's packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'")
    os.environ["SE_OFFLINE"], os.environ["SE_AVOID_STATS"] = "true", "true"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
