"""Draws what a command leaves in a terminal: ``python docs/pictures/terminal.py demo``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 92
# Rich names a font on a content network; the picture fetches nothing and takes what is there.
STYLE = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main(name: str) -> None:
    """Run the command in a terminal's colours and draw it; progress is on the other stream."""
    colours = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TTY_COMPATIBLE": "1"}
    command = [sys.executable, "-m", "ccdgraph", name]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | colours
    )
    written = re.sub(r"/\S*/(ccdgraph-demo-\w+)", r"/tmp/\1", done.stdout.rstrip())
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(f"$ ccdgraph {name}\n{written}"), soft_wrap=True)
        svg = console.export_svg(title="ccdgraph", code_format=STYLE)
    Path(__file__).with_name(f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
