"""What is fuzzed."""

from __future__ import annotations

from .checkpoints import checkpoint
from .command_lines import command_line
from .images import images
from .outcomes import Maker
from .run_folders import run_folder
from .tables import table
from .yaml_files import yaml_file

TARGETS: dict[str, Maker] = {
    "command lines": command_line,
    "tables": table,
    "images": images,
    "YAML": yaml_file,
    "checkpoints": checkpoint,
    "run folders": run_folder,
}
