"""The web page, on which visitors enlarge a photograph, see the latents, and decide in the agent's place.

- :mod:`.pictures`: uploads, limited and cut to a size that a CPU can process
- :mod:`.study`: one picture, model, step pair and seed, and all that the page asks about them
- :mod:`.offers`: everything that may be chosen, and the check of requests
- :mod:`.workshop`: one job at a time, and estimates of time
- :mod:`.show`: film strips and tables as HTML
- :mod:`.choices`, :mod:`.game`, :mod:`.page`: the widgets (Gradio), which call only the workshop
- :mod:`.server`: the port, and the gate that limits which parts of Gradio can be reached

Everything up to :mod:`.show` works without Gradio and without a browser.
"""
