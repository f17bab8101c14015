'''Other people's models.

- :mod:`.sr3`: checkpoints of the SR3 re-implementation and of SkipDiff's authors become model folders
- :mod:`.diffusers`: folders of diffusers' ``UNet2DModel`` load as they are
- :mod:`.diffusers_export`: the way back
- :mod:`.hub`: either kind of folder, by its id on the Hugging Face hub

Anything else is an object with ``predict`` and a ``schedule``. It needs no base class and no registration,
and what computes x̂0 need not even be a network::

    import torch
    from skipdiff_env import SkipDiffSampler
    from skipdiff_env.diffusion import NoiseSchedule

    class Guess:
        """Pixels lie about the bicubic enlargement: x_0 ~ N(c, 0.1²). The best x̂0 is E[x_0 | x_t]."""

        schedule = NoiseSchedule.cosine(steps=100)

        def predict(self, latent, condition, noise_level):  # (B, 3, H, W) twice, √ᾱ (B,) → x̂0
            a = noise_level[:, None, None, None]
            gain = a * 0.1**2 / (a**2 * 0.1**2 + 1 - a**2)
            return condition + gain * (latent - a * condition)

    image = SkipDiffSampler(Guess())(torch.zeros(3, 16, 16), policy=7, seed=0).images[0]

The same object is ``gymnasium.make("SkipDiff-v0", model=Guess(), image_size=128)``. It may also
have a ``scale`` (4 unless it says otherwise), a ``condition(lr)`` (the bicubic enlargement), a
``to_latent(image, condition)`` (what the chain is made of: the image), a ``device`` and a ``dtype``, an
``image_size`` (spares that argument), a ``name``, a ``hash`` (a name for its weights; a latent cache needs
it), a ``start`` or a ``chain`` (what is done with it by default), ``coarse_levels``, and a ``folder`` (where
its agent and its refiner lie). For type checkers the whole is the protocol
:class:`~skipdiff_env.diffusion.DiffusionModel`.
'''
