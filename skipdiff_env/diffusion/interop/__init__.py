'''Other people's models.

- :mod:`.sr3`: checkpoints of the SR3 re-implementation and of SkipDiff's authors become model folders
- :mod:`.diffusers`: folders of diffusers' ``UNet2DModel`` load as they are
- :mod:`.diffusers_export`: the way back
- :mod:`.hub`: either kind of folder, by its id on the Hugging Face hub

Anything else is an object with five members, the protocol :class:`~skipdiff_env.diffusion.DiffusionModel`;
it needs no base class and no registration, and what computes x̂0 need not even be a network::

    import torch
    from skipdiff_env import SkipDiffSampler
    from skipdiff_env.diffusion import NoiseSchedule, bicubic, to_signed

    class Guess:
        """Pixels lie about the bicubic enlargement: x_0 ~ N(c, 0.1²). The best x̂0 is E[x_0 | x_t]."""

        schedule = NoiseSchedule.cosine(steps=100)
        scale = 4

        def condition(self, lr):  # uint8 (B, 3, h, w) → c in [-1, 1]
            return bicubic(to_signed(lr), 4 * lr.shape[-2], 4 * lr.shape[-1]).clamp(-1, 1)

        def predict(self, latent, condition, noise_level):  # √ᾱ (B,) → x̂0 (B, 3, H, W)
            a = noise_level[:, None, None, None]
            gain = a * 0.1**2 / (a**2 * 0.1**2 + 1 - a**2)
            return condition + gain * (latent - a * condition)

        def to_latent(self, image, condition):  # what the chain is made of: the image itself
            return image

    image = SkipDiffSampler(Guess())(torch.zeros(3, 16, 16), policy=7, seed=0).images[0]

The same object is ``gymnasium.make("SkipDiff-v0", model=Guess(), image_size=128)``. Optional members:
``device``, ``image_size`` (spares that argument), ``hash`` (a name for its weights; a latent cache needs it).
'''
