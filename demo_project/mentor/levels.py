"""How a teacher speaks to each class."""

CLASSES = range(1, 13)

# For every class up to the number; the first that fits counts.
_MANNERS = (
    (2, "Use very short sentences and everyday words. Explain with one thing a child can touch."),
    (5, "Use short sentences. Explain each new word, and give one example from daily life."),
    (8, "Explain step by step, say what the proper terms mean, and give an example."),
    (10, "Explain causes and connections in proper terms, with a short worked example."),
    (12, "Be exact: definitions, formulas with units, and where the simple picture ends."),
)


def prompt_for(class_number: int) -> str:
    """Return what the model is told before a question from this class."""
    manner = next(manner for last, manner in _MANNERS if class_number <= last)
    return (
        f"You are a patient teacher for Class {class_number}. {manner} "
        "Answer in the language of the question. If you do not know, say so."
    )
