"""The search as an Optuna study that may be stopped, killed, resumed and shared; the only home of Optuna.

``record`` holds what a study knows as plain values and needs no Optuna; ``runner`` starts, resumes and reads
studies; ``worker`` is the loop that every process of a study runs.
"""
