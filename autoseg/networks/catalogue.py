"""Where each network comes from, and for how many axes it is meant. One line a network, as in `NETWORKS`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """What a table of networks says beside the numbers.

    Attributes:
        paper: Authors, year, venue.
        dims: Numbers of spatial axes that it can be built for.
    """

    paper: str
    dims: tuple[int, ...]


PAPERS: dict[str, Info] = {
    "plain_unet": Info("Isensee et al. 2021, Nature Methods", (2, 3)),
    "residual_unet": Info("Isensee et al. 2024, MICCAI", (2, 3)),
    "conze_unet": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "vgg16_unet": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "vgg19_unet": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "vgg19_unetpp": Info("Zhou et al. 2018, DLMIA; Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "cascaded": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "unet_cascade": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "vgg16_unet_cascade": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "vgg19_unet_cascade": Info("Conze et al. 2021, Artificial Intelligence in Medicine", (2, 3)),
    "roth_unet": Info("Cicek et al. 2016, MICCAI; Roth et al. 2018, Computerized Medical Imaging and Graphics", (2, 3)),
    "se_resunet": Info("Cao et al. 2021, Neurocomputing; Crespi et al. 2023", (2, 3)),
    "deeplabv3": Info("Chen et al. 2017, arXiv 1706.05587; Crespi et al. 2023", (2, 3)),
    "vnet": Info("Milletari et al. 2016, 3DV", (2, 3)),
    "dense_vnet": Info("Gibson et al. 2018, IEEE Transactions on Medical Imaging", (2, 3)),
    "deepmedic": Info("Kamnitsas et al. 2017, Medical Image Analysis", (2, 3)),
    "pipo_fan": Info("Fang and Yan 2020, IEEE Transactions on Medical Imaging", (2, 3)),
    "pipo_unet": Info("Ronneberger et al. 2015, MICCAI; Fang and Yan 2020, IEEE Transactions on Medical Imaging", (2, 3)),
    "pipo_resunet": Info("Han 2017, arXiv 1704.07239; Fang and Yan 2020, IEEE Transactions on Medical Imaging", (2, 3)),
    "dense_unet": Info("Li et al. 2018, IEEE Transactions on Medical Imaging", (2, 3)),
    "localisation_unet": Info("Thaler et al. 2021, FLARE challenge at MICCAI", (2, 3)),
    "scn": Info("Payer et al. 2017, STACOM at MICCAI; Thaler et al. 2021, FLARE challenge at MICCAI", (2, 3)),
}
"""Name in `NETWORKS` -> what is known of it."""
