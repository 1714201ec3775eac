from . import criteria, edits
from .comparison.compare import Comparison, compare
from .comparison.group_check import GroupCheck, check_groups
from .comparison.refitted_heads import RefittedHeads, refitted_heads
from .comparison.unit_tracking import UnitTracking, track_units
from .controls.null_sets import null_sets, sets_of_many_sizes
from .criteria.hardest import hardest_samples
from .criteria.presets import tracing_rules
from .criteria.scores import Scores, by_threshold, count_of, random_dropout, top
from .datasets.folder import from_hugging_face, read_data
from .datasets.properties import image_properties, text_properties
from .datasets.pseudo_minority import with_pseudo_minority
from .datasets.samples import Dataset, Samples
from .datasets.sources import Batch
from .datasets.tensors import from_tensors
from .discovery.discover import Discovery, discover
from .discovery.group_words import group_words
from .discovery.settings import DiscoverSettings, WordSettings
from .edits.edit import Edit
from .engine.ablation import ablation, ablation_map
from .engine.evaluate import evaluate, outcome_blocks
from .engine.outcomes import Outcomes
from .errors import UserError
from .exporting.export import export
from .exporting.model_card import model_card
from .exporting.sample_table import sample_table
from .memorization.only_memorized import only_memorized
from .memorization.proxies import memorization_proxies, proxy_correlations
from .memorization.scores import MemorizationScores, memorization_scores
from .memorization.settings import MemorizationSettings
from .networks.directions import random_directions, with_directions
from .networks.selection import Selection
from .networks.units import Units, parse_units
from .paper.reproduce import Reproduction, reproduce
from .paper.settings import ReproduceSettings
from .published.overview import PublishedResults, published_results
from .reporting.figures.write_figures import draw_figures
from .reporting.notebook import load_ipython_extension
from .reporting.page.write_page import report
from .reporting.settings import FigureSettings
from .runs.import_settings import ImportSettings
from .runs.importing import import_network
from .runs.run import Run
from .settings import Execution, WorkerExecution
from .statistics.agreement import agreement
from .statistics.effects import effects
from .statistics.intersections import intersections
from .statistics.property_accuracies import property_accuracies
from .statistics.property_associations import property_associations
from .studies.pipeline import study, study_in_memory
from .studies.settings import StudySettings, TraceSettings
from .studies.study import Study
from .studies.tracing import Ranking, trace
from .training.contrast import nt_xent
from .training.epoch_selection import selected_epoch, val_halves
from .training.masks import pruned_units
from .training.mitigate import Mitigation, mitigate
from .training.settings import (
    MitigateSettings,
    SharedExecution,
    TrainExecution,
    TrainingsExecution,
    TrainSettings,
)
from .training.train import train
from .version import __version__

__all__ = [
    "Batch",
    "Comparison",
    "Dataset",
    "DiscoverSettings",
    "Discovery",
    "Edit",
    "Execution",
    "FigureSettings",
    "GroupCheck",
    "ImportSettings",
    "MemorizationScores",
    "MemorizationSettings",
    "MitigateSettings",
    "Mitigation",
    "Outcomes",
    "PublishedResults",
    "Ranking",
    "RefittedHeads",
    "ReproduceSettings",
    "Reproduction",
    "Run",
    "Samples",
    "Scores",
    "Selection",
    "SharedExecution",
    "Study",
    "StudySettings",
    "TraceSettings",
    "TrainExecution",
    "TrainSettings",
    "TrainingsExecution",
    "UnitTracking",
    "Units",
    "UserError",
    "WordSettings",
    "WorkerExecution",
    "__version__",
    "ablation",
    "ablation_map",
    "agreement",
    "by_threshold",
    "check_groups",
    "compare",
    "count_of",
    "criteria",
    "discover",
    "draw_figures",
    "edits",
    "effects",
    "evaluate",
    "export",
    "from_hugging_face",
    "from_tensors",
    "group_words",
    "hardest_samples",
    "image_properties",
    "import_network",
    "intersections",
    "load_ipython_extension",
    "memorization_proxies",
    "memorization_scores",
    "mitigate",
    "model_card",
    "nt_xent",
    "null_sets",
    "only_memorized",
    "outcome_blocks",
    "parse_units",
    "property_accuracies",
    "property_associations",
    "proxy_correlations",
    "pruned_units",
    "published_results",
    "random_directions",
    "random_dropout",
    "read_data",
    "refitted_heads",
    "report",
    "reproduce",
    "sample_table",
    "selected_epoch",
    "sets_of_many_sizes",
    "study",
    "study_in_memory",
    "text_properties",
    "top",
    "trace",
    "tracing_rules",
    "track_units",
    "train",
    "val_halves",
    "with_directions",
    "with_pseudo_minority",
]
