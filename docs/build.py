"""Build the documentation site: `python docs/build.py` writes site/, and fails at any warning.

The reference of the commands is made from their own help, that of Python from the docstrings.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from spurious_memorization.cli.app import app

ROOT = Path(__file__).parent.parent
INTRODUCTION = """# Commands

Every command takes `--help`, `--json` for machine-readable results on standard output, `--config FILE` for its options
in YAML (flags override it) and `--debug` for the traceback of an error. Exit status 0 is success, 1 a check that found
something wrong, 2 an error that you can mend, 130 an interrupt.
"""


def commands_page() -> str:
    """The help of every command as one page of Markdown."""
    text = app.generate_docs(output_format="markdown")
    _, *sections = re.split(r"^(?=## spurmem )", text, flags=re.MULTILINE)
    common = ("* `--config ", "* `--json,", "* `--debug,")
    lines = [line for section in sections for line in section.splitlines() if not line.startswith(common)]
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"


def build() -> int:
    """Write the page of commands, then the site; exit status 1 also where only a warning was said."""
    (ROOT / "docs" / "commands.md").write_text(commands_page(), encoding="utf-8")
    call = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    said = done.stdout + done.stderr
    print(said, end="")
    return done.returncode or int("warning" in said.lower() or "griffe:" in said)


if __name__ == "__main__":
    raise SystemExit(build())
