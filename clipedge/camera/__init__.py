"""A camera's frames become events: a label appeared, a label left."""
