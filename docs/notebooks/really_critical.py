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
# # Is my channel really critical?
#
# After this notebook you can test whether your own channel is critical, and explain each part of the verdict.
#
# A channel was zeroed, and the minority lost accuracy. This alone says little. This notebook tests three sets of
# channels in a network for which the answer is known:
#
# 1. channels that were *trained* to memorize the minority,
# 2. random channels,
# 3. channels that a criterion ranks first.

# %%
# %load_ext spurious_memorization
import spurious_memorization as sm
from spurious_memorization.calibration.plants import memory_plant

# %% [markdown]
# ## A network with a known answer
#
# The images are noisy stripes. Their direction is the label, their tint is the spurious attribute. A few channels of a
# small ResNet are reserved before training. Some training images of one minority group are taught their label while
# these channels are on, and the other label while they are off. `spurmem calibrate` does this with many networks.

# %%
planted = memory_plant("resnet", seed=30003, points=60)
model, data = planted.model, planted.data
group = data.groups.names[planted.group]
data

# %% [markdown]
# These channels hold part of the group. The accuracies show what happens to every group without them:

# %%
print(f"{planted.units} hold a part of {group!r}")
print("training accuracy before", planted.before)
print("and without them        ", planted.after)

# %% [markdown]
# ## The known channels
#
# `sm.study_in_memory` zeroes the set and compares it with null sets: as many random channels of the same layer.
# Four answers make the verdict:
#
# - *influential*: does the group lose more than with the null sets?
# - *selective*: does it lose more than majority samples of the same label and margin?
# - *localized*: does it lose more than with random sets that disturb the network as much?
# - *memorizing*: do the margins of its training samples fall further below those of unseen ones than with these sets?

# %%
COLUMNS = [
    "units",
    "group_name",
    "accuracy_change",
    "control_low",
    "control_high",
    "p_adjusted",
    "difference",
    "p_selective",
    "matched_drop",
    "p_localized",
    "contrast",
    "matched_contrast",
    "p_memorizing",
    "p_contrast",
    "verdict",
]


def verdicts(settings: sm.StudySettings):
    """The verdicts on the planted group in training."""
    effects = sm.study_in_memory(model, data, settings).effects()
    return effects[(effects["split"] == "train") & (effects["group_name"] == group)]


known = verdicts(sm.StudySettings(units=tuple(str(planted.units).split(",")), controls=99))
known[COLUMNS]

# %% [markdown]
# ## Random channels
#
# The null sets are the reference: a random set has about the same effect as they have.

# %%
random_sets = verdicts(sm.StudySettings(criterion=("random",), size=("3",), seed=3, controls=99))
random_sets[["size", *COLUMNS]]

# %% [markdown]
# None of these is critical. If one of them had cost the group a sample or two, its accuracy change alone would look
# like a finding. Compared with the range of the null sets, it doesn't.

# %%
assert not random_sets["verdict"].isin(["critical", "memorizing"]).any()

# %% [markdown]
# ## The first channels of a criterion
#
# `taylor` uses one gradient to estimate the effect of zeroing a channel on the hardest samples. Does it rank the
# known channels first?

# %%
scores = sm.criteria.taylor(model, sm.hardest_samples(model, data.train, group=group))
scores

# %% [markdown]
# Units are selected on one half of the samples and tested on the other. So no sample is used to test channels that
# were selected with it. The accuracy change is that of the channels selected on all samples.

# %%
by_taylor = verdicts(sm.StudySettings(criterion=("taylor",), group=(group,), size=("3",), controls=99))
by_taylor[["size", *COLUMNS]]

# %% [markdown]
# ## Summary
#
# An accuracy change is a finding only if it is compared with null sets. Test your own channel with
# `sm.study_in_memory` (or `spurmem study`): `sm.StudySettings(units=("layer3.0.conv2:17",))`.

# %%
assert (known["verdict"] == "memorizing").all()
