"""Configurations with another normalisation than planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..data.label_subsets import safe_file_name
from ..schema import Configuration
from .normalization import find_scheme, is_for_ct


def with_normalization(configuration: Configuration, schemes: Sequence[str]) -> tuple[Configuration, str]:
    """Replaces the normalisation schemes of a configuration: one a channel, or one for all channels.

    A single one whose numbers are Hounsfield units is applied to the channels of CT only.

    Returns:
        The configuration, which reads a data folder of its own (``3d_fullres_w400_l50``), and its suffix (``w400_l50``);
        the same configuration and an empty suffix where nothing changes.

    Raises:
        ValueError: A scheme is unknown, wants CT where there is none, or their number is wrong.
    """
    for scheme in schemes:
        find_scheme(scheme)
    planned = configuration.normalization
    is_ct = [scheme == "ct" for scheme in planned]
    if len(schemes) == 1 and is_for_ct(schemes[0]):
        new = tuple(schemes[0] if ct else scheme for ct, scheme in zip(is_ct, planned, strict=True))
    elif len(schemes) in (1, len(planned)):
        new = tuple(schemes) if len(schemes) == len(planned) else tuple(schemes) * len(planned)
    else:
        raise ValueError(f"--normalization: expected one scheme, or one for each of {len(planned)} channels, got {', '.join(schemes)}")
    odd = [scheme for scheme, ct in zip(new, is_ct, strict=True) if is_for_ct(scheme) and not ct]
    if odd or (len(schemes) == 1 and is_for_ct(schemes[0]) and not any(is_ct)):
        raise ValueError(
            f"{(odd or schemes)[0]}: its numbers are Hounsfield units, expected a channel of CT, found normalisation {', '.join(planned)}; "
            'a channel is CT where channel_names in dataset.json calls it "CT"; for others add --normalization zscore'
        )
    if new == planned:
        return configuration, ""
    masks = tuple(mask and scheme == "zscore" for mask, scheme in zip(configuration.mask_normalization, new, strict=True))
    suffix = "+".join(_suffix(scheme) for scheme in (schemes if len(set(schemes)) > 1 else schemes[:1]))
    return replace(configuration, normalization=new, mask_normalization=masks, data=f"{configuration.data}_{suffix}"), suffix


def _suffix(scheme: str) -> str:
    head, _, numbers = scheme.partition(":")
    if head in ("window", "window8"):
        width, level = (float(number) for number in numbers.split(":"))
        return f"w{width:g}_l{level:g}" + ("_8bit" if head == "window8" else "")
    return safe_file_name(scheme)
