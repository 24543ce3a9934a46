"""The page in a real browser, by day and by night, on a desk and on a phone. Runs where Chromium is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from dinogrl.reports.page import HERE, write_page
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
  const overlaps = [], heights = [];
  for (const svg of drawn) {{
    const words = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect(), t.getBBox().height]);
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    for (const [i, [one, a, height]] of words.entries()) {{
      heights.push(height * scale);
      for (const [other, b] of words.slice(i + 1)) {{
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 3) overlaps.push(one + " / " + other);
      }}
    }}
  }}
  const letters = [...page.querySelectorAll("main *")].filter((e) => e.childNodes.length && !e.closest("svg, details:not([open])"));
  document.body.dataset.found = JSON.stringify({{
    overflow: page.documentElement.scrollWidth - view.innerWidth, broken,
    narrow: charts.filter((b) => b.width < 250 || b.height < 150).length, charts: charts.length,
    thin: [...page.querySelectorAll("tbody th")].filter((t) => t.offsetHeight > 2.2 * t.offsetWidth).map((t) => t.textContent),
    ink: style.color, paper: style.backgroundColor, requests: fetched.length, overlaps,
    lowest: Math.min(...heights), smallest: Math.min(...letters.map((e) => parseFloat(view.getComputedStyle(e).fontSize))),
  }});
}});
</script></body>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    frames = make_frames(root / "frames")
    names = {"baseline": 2.6, "dinogrl": 1.9, "dinogrl + flip + all frames + temporal re-ranking": 1.6}
    runs = [make_run(root / name.replace(" ", ""), name, noise, frames, name == "dinogrl") for name, noise in names.items()]
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
    assert found["broken"] == 0 and found["narrow"] == 0 and found["charts"] == 10 and found["requests"] == 0
    assert not found["overlaps"], "no words in a chart lie on others"
    assert not found["thin"], "no name is squeezed into a column of letters"
    assert found["lowest"] >= 9 and found["smallest"] >= 10.5, "letters can be read, on a phone too"
    ink, paper = (sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("ink", "paper"))
    assert (ink > paper) == dark and abs(ink - paper) > 450


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_can_be_told_from_what_they_stand_on(dark: bool) -> None:
    """WCAG 2: 4.5 to 1 for letters, 3 to 1 for bars, curves and frames; computed from the style sheet."""
    themes = re.findall(r":root \{(.*?)\}", (HERE / "page.css").read_text(), re.DOTALL)
    colours = dict(pair for theme in themes[: 1 + dark] for pair in re.findall(r"--([\w-]+): (#\w{6});", theme))

    def light(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted([light(one), light(other)])
        return (high + 0.05) / (low + 0.05)

    assert len(themes) == 2
    for ground in (colours["card"], colours["page"]):
        assert all(contrast(colours[name], ground) >= 4.5 for name in ("ink", "soft", "accent", "good", "bad"))
        drawn = ["positive", "negative", *(f"run-{i}" for i in range(6))]
        assert all(contrast(colours[name], ground) >= 3 for name in drawn), {n: contrast(colours[n], ground) for n in drawn}
