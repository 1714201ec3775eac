"""The first screen of the report: one sentence and one small figure for each of a few questions."""

from __future__ import annotations

from dataclasses import dataclass

from ...calibration.known_answers import KnownAnswer, KnownAnswers
from ...runs.run import Run
from ..figures.figure import Figure
from ..figures.in_short import IN_SHORT
from ..inputs import ReportInputs
from ..tables.findings import headline
from ..tables.number_formats import format_value


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """One answer of the first screen.

    Arguments:
        title: the question.
        sentence: the answer.
        figure: small, with a fixed scale.
    """

    title: str
    sentence: str
    figure: Figure


def cards(inputs: ReportInputs) -> list[Card]:
    """The cards for which the report has results, in their order: both controls, the network, the repair."""
    made = {name: figure for name, make in IN_SHORT.items() if (figure := make(inputs)) is not None}
    written = {"gap": ("What does this network memorize?", _network(inputs))}
    if inputs.controls is not None:
        positive, negative = control_sentences(inputs.controls)
        written["positive_control"] = ("Does the tool find memory that is there?", positive)
        written["negative_control"] = ("Is it silent where there is none?", negative)
    if "repair" in made:
        written["repair"] = ("What repairs it?", _repair(made["repair"]))
    return [
        Card(title=title, sentence=sentence, figure=figure)
        for name, figure in made.items()
        for title, sentence in [written[name]]
    ]


def control_sentences(answers: KnownAnswers) -> list[str]:
    """What the tool said of the positive and of the negative control, one sentence each."""
    return [_positive(answers.positive), _negative(answers.negative)]


def _positive(answer: KnownAnswer) -> str:
    planted = f"memory of {answer.group} was planted in {_channels(len(answer.planted), answer.layer)}"
    if not answer.is_right:
        strongest = f"its strongest verdict is {answer.verdict}, for {', '.join(answer.units)}"
        return f"Positive control: {planted}; the tool did not find it ({strongest})."
    whole = "it" if len(answer.planted) == 1 else f"{answer.n_found} of them"
    return f"Positive control: {planted}; the tool, which was not told so, found {whole} and says memorizing."


def _negative(answer: KnownAnswer) -> str:
    known = f"{answer.layer} was never trained, so it can't hold memory"
    if answer.is_right:
        return f"Negative control: {known}; none of {answer.n_tests} tests on its channels says critical or memorizing."
    return f"Negative control: {known}; but the tool says {answer.verdict} of {', '.join(answer.units)}."


def _network(inputs: ReportInputs) -> str:
    run = inputs.runs[0]
    first = next((one for one in inputs.studies if one.run is run), None)
    sentence = None if first is None else headline(first.study.effects(), first.study.groups())
    if sentence is None:
        sentence = _largest_gap(run)
    return f"{sentence[0].upper()}{sentence[1:-1]}{_scores(inputs)}."


def _largest_gap(run: Run) -> str:
    """The group with the largest difference between training and test, in a sentence."""
    last = run.history().query("epoch == @run.choose_epoch('last') and n > 0")
    accuracy = (last["correct"] / last["n"]).groupby([last["group"], last["split"]]).first().unstack()
    if not {"train", "test"} <= set(accuracy):
        return "The accuracy of the groups was not measured both in training and in test."
    gaps = (accuracy["train"] - accuracy["test"]).dropna()
    if gaps.empty:
        return "No group was measured both in training and in test."
    of = accuracy.loc[gaps.idxmax()]
    name = run.record.data.groups.names[int(of.name)]
    return (
        f"{name} has the largest gap: {format_value(of['train'], 'percent')} right in training, "
        f"{format_value(of['test'], 'percent')} in test."
    )


def _scores(inputs: ReportInputs) -> str:
    """The mean memorization scores of minority groups and of the other groups, as the end of a sentence."""
    if inputs.memorization is None:
        return ""
    scores = inputs.memorization.scores().dropna(subset="score")
    means = scores.groupby("minority")["score"].mean()
    if not {True, False} <= set(means.index):
        return ""
    minority, others = (format_value(means[is_minority], "decimal") for is_minority in (True, False))
    return f"; memorization scores are {minority} in minority groups on average, {others} in the others"


def _repair(figure: Figure) -> str:
    before, *after = figure.rows.to_dict(orient="records")
    best = max(after, key=lambda row: row["accuracy"])
    kept = " stays at" if best["accuracy"] == before["accuracy"] else f" goes from {_percent(before)} to"
    return (
        f"With {best['name']}, the accuracy of the worst group in test{kept} {_percent(best)} "
        f"({before['group']} before, {best['group']} after)."
    )


def _percent(row: dict[str, float]) -> str:
    return format_value(row["accuracy"], "percent")


def _channels(n: int, layer: str) -> str:
    return f"{n} channel{'s' if n > 1 else ''} of {layer}"
