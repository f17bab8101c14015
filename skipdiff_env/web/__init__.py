"""The web page: enlarge a photograph, watch the latents, play the agent's part.

- :mod:`.pictures`: what visitors upload, bounded and cut to a size that a CPU copes with
- :mod:`.study`: one picture, model, step pair and seed, and all that can be asked about them
- :mod:`.offers`: what may be chosen, and requests checked
- :mod:`.workshop`: one job at a time, time estimates
- :mod:`.show`: film strips and tables as HTML
- :mod:`.choices`, :mod:`.game`, :mod:`.page`: the widgets (Gradio), which call the workshop and nothing else
- :mod:`.server`: what of Gradio can be reached from outside, and the port

Everything up to :mod:`.show` works without Gradio and a browser.
"""
