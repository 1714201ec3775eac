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

After this page you can call every command with its options.

Every command takes these options:

- `--help` prints the options of the command.
- `--json` prints machine-readable results on standard output.
- `--config FILE` reads options from a YAML file. Flags override it.
- `--debug` shows the traceback of an error.

The exit status is 0 for success, 1 for a check that found a problem, 2 for an error that you can fix, and 130 for an
interrupt.
"""


def commands_page() -> str:
    """The help of every command as one page of Markdown."""
    text = app.generate_docs(output_format="markdown")
    _, *sections = re.split(r"^(?=## spurmem )", text, flags=re.MULTILINE)
    common = ("* `--config ", "* `--json,", "* `--debug,")
    lines = [line for section in sections for line in section.splitlines() if not line.startswith(common)]
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"


def build() -> int:
    """Write the page of commands, then the site; a warning gives exit status 1, too."""
    (ROOT / "docs" / "commands.md").write_text(commands_page(), encoding="utf-8")
    call = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    output = done.stdout + done.stderr
    print(output, end="")
    return done.returncode or int("warning" in output.lower() or "griffe:" in output)


if __name__ == "__main__":
    raise SystemExit(build())
