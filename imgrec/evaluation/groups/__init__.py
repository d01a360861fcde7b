"""Whether all are served alike: columns of data, measures of images, rare classes."""
