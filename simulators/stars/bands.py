"""Passbands the stars simulator knows: magnitude systems, pivot wavelengths, zero points, names in the sources."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["BANDS", "Band"]


@dataclass(frozen=True)
class Band:
    """One passband.

    Attributes:
        system: ``Vega`` or ``AB``.
        wavelength: pivot wavelength [micron] (SVO Filter Profile Service).
        mist: name in the MIST tables of bolometric corrections; empty where they lack it.
        ariadne: name in the astroARIADNE flux tables.
        zero_point: flux density of magnitude zero [erg/s/cm2/A] of the ``ariadne`` passband; None anchors it to MIST
            at a Vega-like model. AB bands with a pivot wavelength that fits need none.
        mist_like: MIST band closest in definition to the ``ariadne`` passband where that is not ``mist``.
    """

    system: Literal["Vega", "AB"]
    wavelength: float
    mist: str
    ariadne: str
    zero_point: float | None = None
    mist_like: str = ""


def _ab(wavelength: float) -> float:
    return 3.631e-20 * 2.99792458e18 / (wavelength * 1e4) ** 2


def _ab_band(wavelength: float, mist: str, ariadne: str) -> Band:
    return Band("AB", wavelength, mist, ariadne, _ab(wavelength))


def _jansky(flux: float, wavelength: float) -> float:
    return flux * 1e-23 * 2.99792458e18 / (wavelength * 1e4) ** 2


BANDS: dict[str, Band] = {
    # astroARIADNE has the revised DR2 passbands (Evans et al. 2018); zero points of that system, SVO GAIA/GAIA2r.
    "Gaia_G": Band("Vega", 0.6218, "Gaia_G_EDR3", "GaiaDR2v2_G", 2.4943e-9, "Gaia_G_DR2Rev"),
    "Gaia_BP": Band("Vega", 0.5110, "Gaia_BP_EDR3", "GaiaDR2v2_BP", 4.0236e-9, "Gaia_BP_DR2Rev"),
    "Gaia_RP": Band("Vega", 0.7769, "Gaia_RP_EDR3", "GaiaDR2v2_RP", 1.2902e-9, "Gaia_RP_DR2Rev"),
    # Cohen, Wheaton & Megeath 2003, AJ 126, 1090
    "2MASS_J": Band("Vega", 1.2358, "2MASS_J", "2MASS_J", 3.129e-10),
    "2MASS_H": Band("Vega", 1.6458, "2MASS_H", "2MASS_H", 1.133e-10),
    "2MASS_Ks": Band("Vega", 2.1603, "2MASS_Ks", "2MASS_Ks", 4.283e-11),
    # Jarrett et al. 2011, ApJ 735, 112
    "WISE_W1": Band("Vega", 3.3526, "WISE_W1", "WISE_RSR_W1", 8.1787e-12),
    "WISE_W2": Band("Vega", 4.6028, "WISE_W2", "WISE_RSR_W2", 2.4150e-12),
    "WISE_W3": Band("Vega", 11.5608, "WISE_W3", "WISE_RSR_W3", 6.5151e-14),
    "WISE_W4": Band("Vega", 22.0883, "WISE_W4", "WISE_RSR_W4", 5.0901e-15),
    # Reach et al. 2005, PASP 117, 978
    "IRAC_36": Band("Vega", 3.5508, "", "SPITZER_IRAC_36", _jansky(280.9, 3.5508), "WISE_W1"),
    "IRAC_45": Band("Vega", 4.4960, "", "SPITZER_IRAC_45", _jansky(179.7, 4.4960), "WISE_W2"),
    "PS1_g": _ab_band(0.48491, "PS_g", "PS1_g"),
    "PS1_r": _ab_band(0.62012, "PS_r", "PS1_r"),
    "PS1_i": _ab_band(0.75350, "PS_i", "PS1_i"),
    "PS1_z": _ab_band(0.86742, "PS_z", "PS1_z"),
    "PS1_y": _ab_band(0.96278, "PS_y", "PS1_y"),
    "SDSS_u": _ab_band(0.35565, "SDSS_u", "SDSS_u"),
    "SDSS_g": _ab_band(0.47025, "SDSS_g", "SDSS_g"),
    "SDSS_r": _ab_band(0.61756, "SDSS_r", "SDSS_r"),
    "SDSS_i": _ab_band(0.74900, "SDSS_i", "SDSS_i"),
    "SDSS_z": _ab_band(0.89467, "SDSS_z", "SDSS_z"),
    "SkyMapper_u": Band("AB", 0.3500, "SkyMapper_u", "SkyMapper_u"),
    "SkyMapper_v": Band("AB", 0.3879, "SkyMapper_v", "SkyMapper_v"),
    "SkyMapper_g": Band("AB", 0.5016, "SkyMapper_g", "SkyMapper_g"),
    "SkyMapper_r": Band("AB", 0.6077, "SkyMapper_r", "SkyMapper_r"),
    "SkyMapper_i": Band("AB", 0.7733, "SkyMapper_i", "SkyMapper_i"),
    "SkyMapper_z": Band("AB", 0.9120, "SkyMapper_z", "SkyMapper_z"),
    "Bessell_U": Band("Vega", 0.3605, "Bessell_U", "GROUND_JOHNSON_U"),
    "Bessell_B": Band("Vega", 0.4413, "Bessell_B", "GROUND_JOHNSON_B"),
    "Bessell_V": Band("Vega", 0.5512, "Bessell_V", "GROUND_JOHNSON_V"),
    "Bessell_R": Band("Vega", 0.6586, "Bessell_R", "GROUND_COUSINS_R"),
    "Bessell_I": Band("Vega", 0.8060, "Bessell_I", "GROUND_COUSINS_I"),
    "Tycho_B": Band("Vega", 0.4190, "Tycho_B", "TYCHO_B_MvB"),
    "Tycho_V": Band("Vega", 0.5300, "Tycho_V", "TYCHO_V_MvB"),
    "TESS": Band("Vega", 0.7697, "TESS", "TESS"),
    "GALEX_NUV": Band("AB", 0.2305, "GALEX_NUV", "GALEX_NUV"),
}
