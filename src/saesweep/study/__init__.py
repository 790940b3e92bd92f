"""Interpretability: what the latents of finished SAEs mean. `saesweep study FOLDER`; from Python

    from saesweep.study.collect import collect, collected
"""
