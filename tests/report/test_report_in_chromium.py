"""The report in a real browser, where there is one."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

# Runs in a copy of the report, whose own policy lets no script run.
MEASURE = """<script>addEventListener("load", () => {
  const size = (e) => { const box = e.getBoundingClientRect(); return [box.width, box.height]; };
  document.body.dataset.measured = JSON.stringify({
    drawings: [...document.querySelectorAll(".panel svg")].map(size),
    tables: [...document.querySelectorAll(":not(details) > .table > .scroll")].map(size),
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
    beyond: document.documentElement.scrollWidth - innerWidth,
    paper: getComputedStyle(document.body).backgroundColor,
  });
});</script></head>"""


def browse(folder, page, *options: str) -> str:
    command = [
        *(CHROMIUM, "--headless=new", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", f"--user-data-dir={folder / 'profile'}"),
        *(("--no-sandbox",) if os.getuid() == 0 else ()),
        *(*options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize("report", ["reported_run", "reported_suite"])
@pytest.mark.parametrize("width", [1280, 500])
def test_every_drawing_and_table_is_laid_out_and_nothing_fetched(report, width, request, tmp_path):
    text = (request.getfixturevalue(report) / "report.html").read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</head>", MEASURE), encoding="utf-8")
    shown = browse(tmp_path, copy, f"--window-size={width},2000", "--dump-dom")
    found = re.search(r'data-measured="([^"]*)"', shown)
    assert found is not None, shown[-500:]
    measured = json.loads(html.unescape(found[1]))
    assert len(measured["drawings"]) == text.count('class="panel"') >= 11
    assert all(w > 200 and h > 60 for w, h in measured["drawings"])
    assert len(measured["tables"]) >= 8
    assert all(w > 60 and h > 40 for w, h in measured["tables"])
    assert measured["fetched"] == []
    assert measured["beyond"] <= 0  # nothing makes the page itself scroll sideways
    assert measured["paper"] == "rgb(255, 255, 255)"


def test_report_prints(reported_suite, tmp_path):
    pdf = tmp_path / "report.pdf"
    browse(tmp_path, reported_suite / "report.html", f"--print-to-pdf={pdf}")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_size > 20_000
