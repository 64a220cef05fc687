"""The program inside the image: says what the image is, predicts, and tests itself.

It imports nothing of packager, and beyond the standard library only what the project's
own lock brought into the image, when a model needs it.
"""
