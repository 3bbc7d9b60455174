"""One student's hand-in, as a learning management system gave it, and the grade that goes back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """What one student, or one group, handed in.

    Attributes:
        student: unique in the class, and safe as the name of a file.
        name: as the system spells it; hostile until escaped or quoted.
        keys: what the system knows the student by, for the way back: "canvas_id", "sis_id", "moodle_id", "email",
            "sid", "login".
        files: contents by name, those of the newest attempt, in one folder.
        late: whether the system marked it so.
        attempt: number of the newest attempt, counted from 1.
        notes: sentences about what a reader of the grade should know: older attempts, files left out.
        error: why nothing can be graded, as a sentence; "" where something can.
        members: names of the others, where a group handed in together.
        trouble: a traceback for those who grade, where reading it failed in a way that nobody expected.
    """

    student: str
    name: str
    keys: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    late: bool = False
    attempt: int = 1
    notes: list[str] = field(default_factory=list)
    error: str = ""
    members: list[str] = field(default_factory=list)
    trouble: str = ""


@dataclass(frozen=True)
class Grade:
    """What goes back for one student.

    Attributes:
        entry: who, and what was handed in.
        score, max_score: points; `score` is None where nothing could be graded.
        feedback: plain text for the student, with line breaks.
    """

    entry: Entry
    score: float | None
    max_score: float
    feedback: str
