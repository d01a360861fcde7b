"""Working examples of what can be added from outside; docs/extending.md walks through them."""
