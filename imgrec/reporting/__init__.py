"""Pictures of what a run saved: values in, arrays of pixels out."""
