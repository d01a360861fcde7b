"""How sure the model is, and what that is worth."""
