"""The autograder of the deep generative models homework."""
