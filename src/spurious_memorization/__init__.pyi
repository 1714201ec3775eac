from .comparison.compare import Comparison, compare
from .comparison.follow import Following, follow
from .criteria.ablation import ablation, ablation_map
from .criteria.criteria import gradient, magnitude, random, taylor
from .criteria.scores import Scores, by_threshold, count_of, spared, top
from .criteria.worst import worst
from .data.pseudo import with_pseudo_minority
from .data.read import read_data
from .data.samples import Dataset, Samples, data
from .data.sources import Batch
from .edits.apply import channel_means, edited, edited_tensors
from .edits.edit import Edit, mean, random_init, random_noise, rewind, zero
from .engine.evaluate import evaluate
from .engine.outcomes import Outcomes
from .errors import UserError
from .presets import tracing_rules
from .report.draw import FigureSettings, draw
from .report.page import report
from .reproduction.reproduce import ReproduceSettings, Reproduction, reproduce
from .run import Run
from .settings import Execution
from .study.agreement import agreement
from .study.controls import matched_controls
from .study.effects import effects
from .study.examine import examine
from .study.settings import StudySettings, TraceSettings
from .study.study import Study, study
from .training.importing import ImportSettings, import_network
from .training.loop import TrainExecution
from .training.mitigate import MitigateSettings, Mitigation, mitigate
from .training.objectives.contrast import nt_xent
from .training.objectives.masks import pruned_units
from .training.recipes import TrainSettings
from .training.selection import selected_epoch, val_halves
from .training.train import train
from .units import Selection, Units, parse_units

__version__: str

__all__ = [
    "Batch",
    "Comparison",
    "Dataset",
    "Edit",
    "Execution",
    "FigureSettings",
    "Following",
    "ImportSettings",
    "MitigateSettings",
    "Mitigation",
    "Outcomes",
    "ReproduceSettings",
    "Reproduction",
    "Run",
    "Samples",
    "Scores",
    "Selection",
    "Study",
    "StudySettings",
    "TraceSettings",
    "TrainExecution",
    "TrainSettings",
    "Units",
    "UserError",
    "ablation",
    "ablation_map",
    "agreement",
    "by_threshold",
    "channel_means",
    "compare",
    "count_of",
    "data",
    "draw",
    "edited",
    "edited_tensors",
    "effects",
    "evaluate",
    "examine",
    "follow",
    "gradient",
    "import_network",
    "magnitude",
    "matched_controls",
    "mean",
    "mitigate",
    "nt_xent",
    "parse_units",
    "pruned_units",
    "random",
    "random_init",
    "random_noise",
    "read_data",
    "report",
    "reproduce",
    "rewind",
    "selected_epoch",
    "spared",
    "study",
    "taylor",
    "top",
    "tracing_rules",
    "train",
    "val_halves",
    "with_pseudo_minority",
    "worst",
    "zero",
]
