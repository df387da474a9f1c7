"""Diffusion: pure functions on arrays. Read the files in this order:

schedule    how much image and noise there is at time t
prediction  image, noise and v: three ways to say the same thing
loss        training: corrupt a pyramid, compare
denoiser    from a network to an estimate of the image
sampler     from noise to images
guidance    denoisers made of better and worse informed ones
cads        conditions that fade in
mixture     an exact denoiser, to try it all on
"""
