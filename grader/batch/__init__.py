"""A whole class: who handed in what, grading them all, and the files that go back."""
