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
# Some channel was zeroed, and the minority lost accuracy. That is easily seen and says little. This notebook asks the
# question of three sets of channels in one network whose answer is known:
#
# 1. channels that were *made* to hold the minority by heart,
# 2. channels that were picked by chance,
# 3. channels that a criterion puts first.

# %%
import spurious_memorization as sm
from spurious_memorization.calibration.plants import plant_channels
from spurious_memorization.calibration.striped_images import striped_images
from spurious_memorization.calibration.trials import PLANTED_COUNTS

# %% [markdown]
# ## A network with a known answer
#
# The images are noisy stripes: their direction is the label, the tint is the spurious attribute. A small ResNet is
# trained on the majority alone, so that it fails on the minority. Then two channels of one layer are trained to mend
# the training images of one minority group and to leave all other images alone (`spurmem calibrate` does this with
# many networks).

# %%
planted = plant_channels("resnet", striped_images(1, PLANTED_COUNTS["resnet"]), seed=1, m=2)
model, data = planted.model, planted.data
group = data.groups.names[planted.group]
data

# %% [markdown]
# The channels that hold the group, and what becomes of every group without them:

# %%
print(f"{planted.units} hold {group!r}")
print("training accuracy before", planted.before)
print("and without them        ", planted.after)

# %% [markdown]
# ## The question, asked of the known channels
#
# `sm.examine` zeroes the set beside 99 controls: channels of the same layer with about the same norm, drawn at random.
# Three answers make the verdict: does the group lose more than with the controls (influential)? More than majority
# samples of the same label and margin (selective)? And do its training samples lose more margin than unseen ones
# (memorizing)?

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
    "contrast_low",
    "verdict",
]


def asked(settings: sm.StudySettings):
    """The verdicts on the planted group in training."""
    found = sm.examine(model, data, settings)
    return found[(found["split"] == "train") & (found["group_name"] == group)]


known = asked(sm.StudySettings(units=tuple(str(planted.units).split(","))))
known[COLUMNS]

# %% [markdown]
# ## The same, asked of channels picked by chance
#
# The controls are the yardstick: a set that was picked by chance does what they do.

# %%
by_chance = asked(sm.StudySettings(criterion=("random",), size=("2",), seed=3))
by_chance[["size", *COLUMNS]]

# %% [markdown]
# None of these is critical. Had one of them cost the group a sample or two, its accuracy change alone would have looked like a
# find; beside the controls' range it doesn't.

# %%
assert not by_chance["verdict"].isin(["critical", "memorizing"]).any()

# %% [markdown]
# ## And of what a criterion puts first
#
# `taylor` estimates from one gradient what zeroing a channel does to the hardest samples. Does its order begin with the
# known channels?

# %%
scores = sm.criteria.taylor(model, sm.hardest_samples(model, data.train, group=group))
scores

# %% [markdown]
# Units are selected on one half of the samples and tested on the other, so that no sample judges channels that were
# chosen because of it. The accuracy change is that of the channels selected on all samples.

# %%
by_taylor = asked(sm.StudySettings(criterion=("taylor",), group=(group,), size=("2",)))
by_taylor[["size", *COLUMNS]]

# %% [markdown]
# ## What to take home
#
# A accuracy change becomes a finding by what it is compared with. Ask `sm.examine` (or `spurmem study`) the same of your own
# channel: `sm.StudySettings(units=("layer3.0.conv2:17",))`.

# %%
assert (known["verdict"] == "memorizing").all()
