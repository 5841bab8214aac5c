"""What a model's answers to labelled pictures say: by class, by group, on worse pictures, with intervals."""
