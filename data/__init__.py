"""Two small labelled data sets that need no download: see README.md."""
