"""What a model card and a datasheet have to say: headings, questions, and which need an answer.

The sections are those of Mitchell et al. (2019), "Model Cards for Model Reporting", and of
Gebru et al. (2021), "Datasheets for Datasets"; the questions are theirs in fewer words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DATASHEET", "MODEL_CARD", "Outline"]


@dataclass(frozen=True, slots=True)
class Outline:
    """What must stand in a card.

    Attributes
    ----------
    sections : mapping of str to tuple of str
        Each section's heading, and the headings of the questions below it.
    answered : mapping of str to str
        The headings that "Not answered." does not do for, and what each is about.
    """

    sections: Mapping[str, tuple[str, ...]]
    answered: Mapping[str, str]


MODEL_CARD = Outline(
    sections={
        "Model Details": (),
        "Intended Use": (),
        "Factors": (),
        "Metrics": (),
        "Evaluation Data": (),
        "Training Data": (),
        "Quantitative Analyses": (),
        "Ethical Considerations": (),
        "Caveats and Recommendations": (),
    },
    answered={
        "Intended Use": "the intended use",
        "Training Data": "the source",
        "Caveats and Recommendations": "the limits",
    },
)

DATASHEET = Outline(
    sections={
        "Motivation": (
            "What were the data gathered for?",
            "Who gathered them, and for whom?",
            "Who paid for it?",
        ),
        "Composition": (
            "What is one row?",
            "How many rows are there?",
            "Are these all there could be, or a sample?",
            "What does each row hold?",
            "Is there a label or target?",
            "Is anything missing?",
            "Do rows belong together?",
            "Are there splits to keep to?",
            "Which errors, noise and repetitions are known?",
            "Do the data stand alone, or lean on something elsewhere?",
            "Is anything confidential?",
            "Could anything offend or frighten?",
            "Are the data about people?",
            "Which groups of people can be told apart?",
            "Can single persons be recognised?",
            "Is anything about people sensitive?",
        ),
        "Collection process": (
            "Where does each value come from?",
            "With which instruments or programs was it taken?",
            "How was the sample drawn?",
            "Who did the work, and how were they paid?",
            "Over what time?",
            "Was there an ethical review?",
            "Were people asked or observed?",
            "Do the data come from them directly, or through others?",
            "Were they told?",
            "Did they agree?",
            "Can they take their consent back?",
            "Was the effect on them looked into?",
        ),
        "Preprocessing, cleaning, labelling": (
            "What was done to the raw data?",
            "Were the raw data kept?",
            "Is the software for it to be had?",
        ),
        "Uses": (
            "What have the data been used for?",
            "Where are the works that used them listed?",
            "What else could they be used for?",
            "What in their making could do harm in later uses?",
            "What should they not be used for?",
        ),
        "Distribution": (
            "Do others get the data?",
            "How do they get them?",
            "Since when, or from when on?",
            "Under which licence or terms?",
            "Has anybody else rights in them?",
            "Do export controls or other rules apply?",
        ),
        "Maintenance": (
            "Who keeps the data?",
            "How can they be reached?",
            "Is there a list of errata?",
            "Will the data be updated?",
            "Are there limits to how long data about people are kept?",
            "Do older versions stay?",
            "Can others add to them?",
        ),
    },
    answered={
        "What were the data gathered for?": "the intended use",
        "Where does each value come from?": "the source",
        "What should they not be used for?": "the limits",
        "Under which licence or terms?": "the licence",
    },
)
