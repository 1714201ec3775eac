"""Names of what can be exported. This module imports no numerical library, so that help texts appear at once."""

from __future__ import annotations

from typing import Literal

ExportFormat = Literal["csv", "datasets", "fiftyone", "model-card"]
