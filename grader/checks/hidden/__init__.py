"""Checks that students do not download: other shapes, other sizes, extreme values. rubric.toml says who sees them."""
