"""Pictures and camera frames become uint8 pixels, exactly as the model was trained."""
