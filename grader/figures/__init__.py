"""Makes the report of the assignment: trains every model on MNIST and CIFAR-10, measures, and writes the page."""
