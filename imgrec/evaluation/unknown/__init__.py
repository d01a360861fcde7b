"""What the model has not learnt: other data sets, classes held out, classes to be added."""
