"""Answers become decisions: a label, several, or none of these; fitted on labelled pictures."""
