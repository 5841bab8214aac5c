"""Models in OpenCLIP's layout and in OpenAI's, which shares its tensors' names; read without open_clip."""
