"""What one network has learnt for another: weights in and out, and heads fitted to features.

Files of other projects are read without their frameworks, and written.
"""
