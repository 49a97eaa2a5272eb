"""Measure how fast a run's page opens: python -m scripts.measure.page [--steps 10000] [--rounds 7] [--runs 1] [--page report.html]

Makes the folder of a DPO run that logged so many steps, writes its page, and opens it in headless Chromium, each time in a new browser, at
1280 x 1000, once from the top and once at its curves. Prints for each the medians over the rounds: milliseconds from the start of the
navigation until something can be read, and until every chart on the screen is drawn; and of these the processor's on the main thread.
--page: open this page instead of making one. --profile: also print where the main thread's time went, by function.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from paddlealign.report.page import render
from paddlealign.report.run_files import read_run
from tests.browsers import started_browser
from tests.small_pages import write_long_run

# By the page's own clock: when its scripts have run, when its first chart is drawn, and when every chart of the screen is.
WATCH = """
addEventListener("DOMContentLoaded", () => {
  const times = window.__times = { ready: performance.now() };
  if (location.hash) document.querySelector(location.hash).scrollIntoView({ behavior: "instant" });
  const look = () => {
    const seen = [...document.querySelectorAll(".card")].filter((it) => {
      const box = it.getBoundingClientRect();
      return box.top < innerHeight && box.bottom > 0;
    });
    const drawn = seen.filter((it) => it.dataset.drawn);
    if (drawn.length || !seen.length) times.first ??= performance.now();
    if (drawn.length === seen.length) { times.all = performance.now(); times.charts = seen.length; } else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""
TIMES = """
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return window.__times?.all && paint ? {read: paint.startTime, ...window.__times} : null;
"""


def open_once(page: str, profile: Path, sampled: bool) -> tuple[dict[str, float], Counter[str]]:
    """Open the page in a new browser: milliseconds by name, and, where ``sampled``, milliseconds by function."""
    with started_browser(profile) as browser:
        browser.get("about:blank")
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        if sampled:
            browser.execute_cdp_cmd("Profiler.enable", {})
            browser.execute_cdp_cmd("Profiler.setSamplingInterval", {"interval": 500})
            browser.execute_cdp_cmd("Profiler.start", {})
        browser.get(page)
        found = None
        while found is None:
            found = browser.execute_script(TIMES)
            time.sleep(0.02)
        metrics = {it["name"]: it["value"] for it in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
        by_function = functions_of(browser.execute_cdp_cmd("Profiler.stop", {})["profile"]) if sampled else Counter()
    busy = {name: 1000 * metrics[key] for name, key in (("main thread", "TaskDuration"), ("scripts", "ScriptDuration"))}
    return {**found, **busy}, by_function


def functions_of(profile: dict[str, Any]) -> Counter[str]:
    """Milliseconds by function and place, without what it calls."""
    names = {
        node["id"]: f"{node['callFrame']['functionName'] or '(anonymous)'} line {node['callFrame']['lineNumber'] + 1}"
        f" column {node['callFrame']['columnNumber']}"
        for node in profile["nodes"]
    }
    spent: Counter[str] = Counter()
    for place, delta in zip(profile["samples"], profile["timeDeltas"], strict=True):
        spent[names[place]] += delta / 1000
    return spent


def main() -> None:
    """Make the page, open it several times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = given.page
        if page is None:
            page = folder / "report.html"
            began = time.process_time()
            runs = [read_run(write_long_run(folder / f"run{number}", given.steps, seed=number)) for number in range(given.runs)]
            made = time.process_time()
            page.write_text(render(runs), encoding="utf-8")
            print(f"written in {time.process_time() - made:.1f} s of processor time (its run: {made - began:.1f} s)")
        print(f"{page.stat().st_size / 1e6:.2f} MB; load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for place in ("", "#curves"):
            rounds = [
                open_once(page.resolve().as_uri() + place, folder / f"profile{place[1:]}{at}", False)[0] for at in range(given.rounds)
            ]
            medians = {key: statistics.median(it[key] for it in rounds) for key in rounds[0]}
            print(
                f"{place or 'top':8} readable after {medians['read']:.0f} ms, ready after {medians['ready']:.0f} ms, the first chart after "
                f"{medians['first']:.0f} ms, all {medians['charts']:.0f} on the screen after {medians['all']:.0f} ms "
                f"({min(it['all'] for it in rounds):.0f} to {max(it['all'] for it in rounds):.0f}); processor: "
                f"{medians['main thread']:.0f} ms of the main thread, {medians['scripts']:.0f} of them scripts"
            )
        if given.profile:
            _, spent = open_once(page.resolve().as_uri() + "#curves", folder / "sampled", True)
            for function, milliseconds in spent.most_common(40):
                print(f"{milliseconds:8.1f} ms  {function}")
        print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
