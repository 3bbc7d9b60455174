"""The grader measured on its bank: what it accepts, what it catches, and whether it names the mistake."""
