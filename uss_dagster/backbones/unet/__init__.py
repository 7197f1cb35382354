"""The diffusion UNet behind the backbone ``diffusion``.

Belongs here: reading its weights, capturing its attention, training the embedded one. Does not belong here: the backbone plug-in itself.
"""
