"""The checks: what is asserted about a submission, one pytest file a topic.

A check is a function `test_...(student, draw)` under `@question(...)`. It passes by returning, and fails by
raising `Failure`, which `expect` and the proxy of the submission do for it.
"""
