"""Diffusion: pure functions on arrays. Read the files in this order:

  schedule    how much image and noise there is at time t
  prediction  image, noise and v: three ways to say the same thing
  loss        training: corrupt a pyramid, compare
  denoiser    from a network to an estimate of the image
  sampler     from noise to images
  guidance    denoisers made of better and worse informed ones
  cads        conditions that fade in
  mixture     an exact denoiser, to try it all on

Ten samples of class A of the paper's toy, guided, in 50 steps:

  >>> import jax.numpy as jnp
  >>> from kaleido_jax.diffusion import guidance, mixture, sampler, schedule
  >>> anything, class_a = jnp.full((1, 4), 0.25), jnp.array([[0.5, 0.5, 0, 0]])
  >>> ladder = guidance.by_condition(mixture.toy().model, anything, class_a)
  >>> (x,), _ = sampler.sample(
  ...   guidance.guide(ladder, 4.0),
  ...   schedule.create('squared_cosine', 1000).pyramid((1,)),
  ...   sampler.grid(50, 1000, spacing='trailing'),
  ...   sampler.gaussian(sampler.keys(0, range(10)), [(2,)]),
  ...   solver=sampler.SOLVERS['ddim'],
  ... )
  >>> x.shape, bool((x[:, 0] < 0).all())
  ((10, 2), True)
"""
