"""When would a fault-tolerant quantum computer train this model by gradient descent? What it would take, in stated units.

`polynomial`, `carleman`, `history`, `phases`, `linear_solver`: the algorithm on a small polynomial loss, exactly and by a simulated
quantum linear-system solver. `logical`, `physical`, `outlook`: what it costs, and against what. `pruning`, `curvature`, `lanczos`,
`trajectory`: what a model's Hessian says about it. Nothing is imported here: each module is, by its own name, when it is used.

After Liu, Liu, Liu, Ye, Wang, Alexeev, Eisert and Jiang 2024 (Nature Communications 15, arXiv 2303.03428).
"""
