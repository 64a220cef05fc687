"""Where an image goes: an archive, an engine."""
