"""The texts and the layout of the page."""

INTRO = """# SkipDiff
Enlarge photographs by a factor of four with a diffusion model that skips most of its steps."""
ADVANCED = """By default, everything is done as `skipdiff upscale` does it, with the settings that suit the
model.

A diffusion model turns noise into a picture level by level. SkipDiff first makes **S** − 1 coarse jumps, each
over many levels, and then passes through **F** fine levels. At each of these but the last, a **policy**
decides: *denoise* costs a network call and adds detail; *skip* goes down one level for free, but returns to
the result of the coarse jumps. A fixed start *k* skips down to level *k* and denoises from there. The calls
of a **plan** are all fixed beforehand, at any levels. Choose a model first: `auto` chooses the one that suits
the photograph."""
MAY_SPEND, DECIDED = "how many network calls may be spent", "decided by the policy under Advanced"
"""Descriptions of the effort if it has an influence, and if it has none."""
PLAN = "100>57>27>14|11>5>2>0 eta 0|1"
"""The plan shown at first."""
LAYOUT = """
.gradio-container {max-width: 1280px !important; width: 100% !important; margin: auto !important;
  box-sizing: border-box; --block-info-text-color: var(--block-label-text-color)}
#photographs .grid-wrap {min-height: 0; height: auto; padding: 0}
#photographs .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; padding: 4px}
#photographs .thumbnail-item {min-width: 0; width: 100%; height: auto; aspect-ratio: 1}
#photographs .caption-label {font-size: 11px; padding: 0 4px}
#estimated img {width: 100%; height: 100%; object-fit: contain}
#photographs {min-height: 0 !important}
#upload .icon-wrap {display: none}
@media (max-width: 640px) {
  .gradio-container {padding: 8px !important}
  #intro h1 {margin: 0}
}
"""
TO_RESULT = "() => {if (innerWidth < 700) document.querySelector('#slider').scrollIntoView()}"
"""Scrolls to the result, which is below all controls on a phone."""
