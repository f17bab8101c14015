"""The models that ship, a folder each; installed as ``skipdiff_env.pretrained``."""
