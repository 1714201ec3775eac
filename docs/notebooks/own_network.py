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
# A folder of images, a network of your own, and the question which of its channels memorize the minority. Put your
# folder in the place of the drawn one, and your network in the place of `Birds`: nothing else changes.

# %%
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import spurious_memorization as sm
from spurious_memorization.datasets.synthbirds.make import SynthbirdsSettings, make_synthbirds

# %% [markdown]
# ## Images
#
# Drawn birds of two kinds on land and water: in training 95 % are on their usual background. Your own images need a
# table `metadata.csv` with the columns `path,y,a,split` beside them.

# %%
folder = Path(tempfile.mkdtemp()) / "birds"
make_synthbirds(folder, SynthbirdsSettings(train=400, val=80, test=200, image_size=32))
data = sm.read_data(folder)
data

# %% [markdown]
# ## A network
#
# Any `nn.Module` that gives logits, trained by any loop. Batches have `inputs`, `y` and `index`.


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
# `sm.evaluate` without an edit measures the network as it is; `before.predicted` are its answers. A minority that is
# right in training and wrong in test has been memorized.

# %%
accuracy = {}
for samples in (data.train, data.test):
    right = sm.evaluate(model, [], samples).before.predicted[0] == samples.y
    accuracy[samples.split] = {name: right[samples.g == g].mean() for g, name in enumerate(data.groups.names)}
data.counts().assign(**{f"accuracy in {split}": list(of.values()) for split, of in accuracy.items()})

# %% [markdown]
# ## Which channels does a criterion select?

# %%
group = data.groups.names[data.minority[0]]
worst = sm.hardest_samples(model, data.train, group=group, n=200)
scores = sm.criteria.gradient(model, worst)
scores

# %% [markdown]
# ## What becomes of every group without the first three?
#
# Beside 99 controls: the same edit on random channels of the same layers and about the same norm.

# %%
units = sm.top(scores, 3)
edit = sm.edits.zero(units)
result = sm.evaluate(model, [edit, *sm.matched_controls(model, edit, n=99)], data.train)
found = sm.effects(result, data.train)
found[
    ["group", "n", "accuracy_before", "accuracy_after", "accuracy_change", "control_low", "control_high", "p_adjusted"]
]

# %% [markdown]
# These p-values flatter the criterion, since the channels were selected on the same samples. The whole job selects on
# one half and tests on the other (controls are measured on at most 50 images a group, which is quicker):

# %%
examined = sm.examine(model, data, sm.StudySettings(criterion=("gradient",), size=("3",), per_group=50))
minority = examined[examined["minority"] & (examined["split"] == "train")]
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
# - `sm.train` and `sm.study` do the same with a run directory: every epoch kept, everything resumable, one command each
#   (`spurmem train`, `spurmem study`).
# - A network that was trained elsewhere becomes a run by `sm.import_network`.
# - [Is my channel really critical?](really_critical.py) tells what the verdicts are made of.
