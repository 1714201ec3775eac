# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own network and images in ten minutes
#
# After this notebook you can look for the channels of your own network that memorize a minority group of your own
# images. Replace the folder of drawn images by your folder, and `Birds` by your network. Nothing else changes.

# %%
# %load_ext spurious_memorization
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import spurious_memorization as sm
from spurious_memorization.datasets.settings import SynthbirdsSettings
from spurious_memorization.datasets.synthbirds.make import make_synthbirds

# %% [markdown]
# ## Images
#
# These are drawn birds of two kinds on land and water. In training, 95 % are on their usual background. For your own
# images you need a table `metadata.csv` in their folder, with the columns `path,y,a,split`.

# %%
folder = Path(tempfile.mkdtemp()) / "birds"
make_synthbirds(folder, SynthbirdsSettings(train=400, val=80, test=200, image_size=32))
data = sm.read_data(folder)
data

# %% [markdown]
# ## A network
#
# Any `nn.Module` that returns logits works, trained by any loop. Batches have `inputs`, `y` and `index`.


# %%
class Birds(nn.Module):
    """Three convolutions with batch norm, then the mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 24, 48, 96)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
                for i, o in pairwise(channels)
            )
        )
        self.head = nn.Linear(channels[-1], 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(x).mean((2, 3)))


torch.manual_seed(0)
model = Birds()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(30):
    for batch in data.train.shuffled(seed=0, epoch=epoch).batches(32):
        loss = F.cross_entropy(model(batch.inputs), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model = model.eval()

# %% [markdown]
# ## Does it memorize its minority?
#
# `sm.evaluate` without an edit measures the network as it is. `before.predicted` holds its predictions. A minority
# group that is right in training and wrong in test has been memorized.

# %%
accuracy = {}
for samples in (data.train, data.test):
    correct = sm.evaluate(model, [], samples).before.predicted[0] == samples.y
    accuracy[samples.split] = {name: correct[samples.g == g].mean() for g, name in enumerate(data.groups.names)}
data.counts().assign(**{f"accuracy in {split}": list(of.values()) for split, of in accuracy.items()})

# %% [markdown]
# ## Which channels does a criterion select?

# %%
group = data.groups.names[data.minority[0]]
hardest = sm.hardest_samples(model, data.train, group=group, n=200)
scores = sm.criteria.gradient(model, hardest)
scores

# %% [markdown]
# ## What happens to every group without the first three channels?
#
# The effect is compared with 99 null sets: the same edit on as many random channels of the same layers.

# %%
units = sm.top(scores, 3)
edit = sm.edits.zero(units)
result = sm.evaluate(model, [edit, *sm.null_sets(model, edit, n=99)], data.train)
found = sm.effects(result, data.train)
found[
    ["group", "n", "accuracy_before", "accuracy_after", "accuracy_change", "control_low", "control_high", "p_adjusted"]
]

# %% [markdown]
# These p-values favor the criterion, because the channels were selected on the same samples. A whole study selects on
# one half and tests on the other. Here the null sets are measured on at most 50 images per group, which is faster.

# %%
study = sm.study_in_memory(model, data, sm.StudySettings(criterion=("gradient",), size=("3",), per_group=50))
effects = study.effects()
minority = effects[effects["minority"] & (effects["split"] == "train")]
minority[
    [
        "criterion",
        "traced_on",
        "size",
        "group_name",
        "accuracy_change",
        "p_adjusted",
        "difference",
        "p_selective",
        "verdict",
    ]
]

# %% [markdown]
# ## What next
#
# - `sm.train` and `sm.study` do the same with a run directory. Every epoch is kept, and stopped work continues. Each
#   is one command (`spurmem train`, `spurmem study`).
# - `sm.import_network` makes a run of a network that was trained elsewhere.
# - [Is my channel really critical?](really_critical.py) explains how a verdict is made.
