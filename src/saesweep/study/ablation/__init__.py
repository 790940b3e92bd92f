"""What the latents that fire often carry: FVU and delta loss with a set S of an SAE's latents ablated.

    x_hat_S = x_hat + sum over i in S of (c_i - f_i) W_dec_i       c_i = 0, or the mean of f_i (mean ablation)

    frequent        S: the latents that fire on more than `threshold` of the tokens
    random_firings  S: latents below it that fire, drawn at random until they have as many firings as the frequent ones
    random_energy   S: the same, until they have as much energy, E[f_i^2] ||W_dec_i||^2

S and the means are of the calibration documents; FVU and delta loss are of the evaluation documents, as in eval.json. Where
the latents below the threshold have fewer firings, or less energy, than the frequent ones, a control has all of them.
"""
