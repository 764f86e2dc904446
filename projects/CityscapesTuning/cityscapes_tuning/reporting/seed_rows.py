"""The numbers printed in the slides (sections 5 and 7), to stand beside ours. In [0, 1]; on their test set."""

VARIANTS = {
    "V1": "best model",
    "V2": "V1 with flip",
    "V3": "V1 with flip and crop",
    "V4": "V1 with the backbone's last layers unfrozen",
    "V5": "V1 with RPN and FPN frozen",
}
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# by threshold
AP = {
    "V1": (0.587, 0.566, 0.534, 0.487, 0.430, 0.352, 0.274, 0.187, 0.099, 0.001),
    "V2": (0.611, 0.586, 0.549, 0.500, 0.437, 0.360, 0.270, 0.185, 0.095, 0.000),
    "V3": (0.615, 0.590, 0.546, 0.488, 0.416, 0.338, 0.250, 0.171, 0.085, 0.000),
    "V4": (0.608, 0.581, 0.544, 0.496, 0.434, 0.360, 0.280, 0.190, 0.106, 0.003),
    "V5": (0.623, 0.602, 0.567, 0.508, 0.444, 0.362, 0.275, 0.188, 0.100, 0.001),
}
RAP = {"V1": 0.352, "V2": 0.360, "V3": 0.350, "V4": 0.360, "V5": 0.367}
CLASS_AP = {
    "car": (0.713, 0.722, 0.736, 0.719, 0.745),
    "person": (0.464, 0.486, 0.487, 0.473, 0.493),
    "rider": (0.530, 0.592, 0.563, 0.561, 0.574),
    "motorcycle": (0.190, 0.223, 0.194, 0.208, 0.181),
    "bicycle": (0.402, 0.443, 0.436, 0.432, 0.444),
    "bus": (0.527, 0.575, 0.542, 0.521, 0.604),
    "truck": (0.161, 0.197, 0.212, 0.113, 0.242),
    "trailer": (0.0, 0.0, 0.0, 0.0, 0.0),
    "caravan": (0.0, 0.0, 0.0, 0.0, 0.0),
    "train": (0.0, 0.0, 0.0, 0.0, 0.0),
}
# optimizer -> (lr, momentum, weight decay, validation loss), the best two
FINE = {
    "sgd": ((5.93e-5, 0.98, 5.83e-3, 0.86), (7.1e-5, 0.93, 5.83e-3, 0.91)),
    "adam": ((7.3e-6, 0.96, 5.67e-4, 0.93), (5.73e-6, 0.95, 4.13e-3, 0.94)),
}
# optimizer -> the learning rate above which the loss was NaN
DIVERGES_ABOVE = {"sgd": 1e-3, "adam": 1e-4}


def class_ap(variant: str, name: str) -> float | None:
    """The slides' cAP of a class; None for a variant or a class that they do not have."""
    if variant not in VARIANTS or name not in CLASS_AP:
        return None
    return CLASS_AP[name][list(VARIANTS).index(variant)]
