"""Reports: the result model, and what is made of it."""
