"""The source document's own numbers, for orientation (its table in section 5, best epochs from section 4)."""

# preset -> (name in the document, FID, IS, best epoch); its sample counts are unknown, so they compare with nothing
LADDER: dict[str, tuple[str, str, str, str]] = {
    "dcgan": ("DCGAN", "371.4", "1.05", "1400"),
    "dcgan_big": ("Bigger DCGAN", "359.41", "1.036", "2800"),
    "dcgan_hinge": ("DCGAN with hinge loss", "noise", "noise", "3000"),
    "sa_dcgan": ("Self-attention DCGAN", "not given", "not given", "1600"),
    "resnet18_sa_ortho": ("ResNet18, self-attention, orthogonal", "not given", "not given", "not given"),
    "resnet18": ("ResNet18", "401.72", "1.036", "2950"),
    "resnet34": ("ResNet34", "378.69", "1.06", "3400"),
    "logan": ("LOGAN", "397.59", "1.061", "2200"),
    "logan_b": ("LOGAN-B", "363.14 (361.14 in the text)", "1.037", "3100"),
    "resnet18_logan": ("ResNet18 LOGAN", "375.12", "1.055", "1650"),
    "resnet18_sa_logan": ("ResNet18 SA-LOGAN", "361.61", "1.055", "not given"),
}
