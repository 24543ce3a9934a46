"""The page in a real browser, by day and by night, on a desk and on a phone. Runs where Chromium is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from dinogrl.reports.page import write_page
from tiny_runs import make_frames, make_run

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
MEASURE = """
<body style="margin:0"><iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe><script>
document.querySelector("iframe").addEventListener("load", (event) => {{
  const page = event.target.contentDocument, view = event.target.contentWindow;
  const broken = [...page.images].filter((i) => (i.loading = "eager", i.src.length < 30)).length;
  const drawn = [...page.querySelectorAll(".chart svg")].filter((s) => !s.closest("details:not([open])"));
  const charts = drawn.map((s) => s.getBoundingClientRect());
  const fetched = view.performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:"));
  const main = page.querySelector("main"), style = view.getComputedStyle(page.body);
  document.body.dataset.found = JSON.stringify({{
    overflow: page.documentElement.scrollWidth - view.innerWidth, broken,
    narrow: charts.filter((b) => b.width < 250 || b.height < 150).length, charts: charts.length,
    ink: style.color, paper: style.backgroundColor, requests: fetched.length,
  }});
}});
</script></body>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    frames = make_frames(root / "frames")
    runs = [make_run(root / name, name, noise, frames, name == "dinogrl") for name, noise in (("baseline", 2.6), ("dinogrl", 1.9))]
    write_page(root / "report.html", runs)
    return root


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1280], ids=["phone", "desk"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_in_a_browser(folder: Path, width: int, dark: bool) -> None:
    wrapper = folder / f"wrapper-{width}-{dark}.html"
    wrapper.write_text(MEASURE.format(width=width))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--virtual-time-budget=4000"]
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    size = "--window-size=1400,1000"
    done = subprocess.run(
        [str(CHROMIUM), *options, theme, size, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    written = re.search(r'data-found="([^"]*)"', done.stdout)
    assert written, done.stderr[-2000:]
    found = json.loads(unescape(written.group(1)))
    assert found["overflow"] <= 0, "nothing makes the whole page scroll sideways"
    assert found["broken"] == 0 and found["narrow"] == 0 and found["charts"] == 8 and found["requests"] == 0
    ink, paper = (sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("ink", "paper"))
    assert (ink > paper) == dark and abs(ink - paper) > 450
