'''Models in other formats.

- :mod:`.sr3`: checkpoints of the SR3 re-implementation and of SkipDiff's authors become model folders
- :mod:`.diffusers`: model folders of diffusers (``UNet2DModel``) load as they are
- :mod:`.diffusers_export`: SkipDiff's model folders become model folders of diffusers
- :mod:`.hub`: model folders in any layout load by their id on the Hugging Face hub

Any other model is an object with ``predict`` and a ``schedule``. It needs neither a base class nor
registration, and x̂0 need not even come from a network::

    import torch
    from skipdiff_env import SkipDiffSampler
    from skipdiff_env.diffusion import NoiseSchedule

    class Guess:
        """Pixels scatter about the bicubic enlargement: x_0 ~ N(c, 0.1²). The best x̂0 is E[x_0 | x_t]."""

        schedule = NoiseSchedule.cosine(steps=100)

        def predict(self, latent, condition, noise_level):  # (B, 3, H, W) twice, √ᾱ (B,) → x̂0
            a = noise_level[:, None, None, None]
            gain = a * 0.1**2 / (a**2 * 0.1**2 + 1 - a**2)
            return condition + gain * (latent - a * condition)

    image = SkipDiffSampler(Guess())(torch.zeros(3, 16, 16), policy=7, seed=0).images[0]

The same object works in ``gymnasium.make("SkipDiff-v0", model=Guess(), image_size=128)``. It may also have
a ``scale`` (by default 4), ``condition(lr)`` (by default the bicubic enlargement), ``to_latent(image,
condition)`` (the target of the chain, by default the image), a ``device`` and a ``dtype``, an ``image_size``
(which makes that argument unnecessary), a ``name``, a ``hash`` (identity of its weights, which a latent
cache needs), a ``start`` or a ``chain`` (used by default), ``coarse_levels``, and a ``folder`` (of
its agent, its refiner and its plans). For type checkers, all of this is the protocol
:class:`~skipdiff_env.diffusion.DiffusionModel`.
'''
