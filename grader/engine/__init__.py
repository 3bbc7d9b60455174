"""The engine: runs student code in a process of its own, and speaks to it in plain data.

`wire`, `sandbox`, `worker` and `zygote` are loaded into processes that run student code, and import nothing
else of the grader. `student` and `launcher` stay on the trusted side.
"""
