"""What this machine can do, what it lacks, and the command that adds it."""
