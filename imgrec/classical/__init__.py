"""Classical image recognition, under the same protocol: features by hand, a classifier on them.

What a network has to beat. `planning` checks and estimates, `fitting` runs, `runs` opens what a
run has saved; `features` and `classifiers` know the methods by name. The work is scikit-learn's,
scikit-image's and OpenCV's, which the extra `classical` installs.
"""
