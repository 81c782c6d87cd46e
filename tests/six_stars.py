"""Six stars as public tables list them, and what tests of tables ask of them."""

import numpy as np
import pytest

from sbi_da.errors import TableError
from sbi_da.records import read_table
from sbi_da.surveys import get_survey, list_surveys

SURVEYS = [get_survey(name) for name in list_surveys()]
GAIA, WISE, PS1, TWOMASS = (get_survey(n) for n in ("gaia", "wise", "panstarrs", "twomass"))
IDS = np.array([4295806720, 5853498713190525696, 6019091933163241601, 7, 216677767189697024, 9223372036854775807])


def columns():
    """Six stars as Gaia, 2MASS, WISE and Pan-STARRS list them; all is missing for the last."""
    nan = np.nan
    return {
        "source_id": IDS.copy(),
        "ra": np.linspace(0.1, 359.0, 6),
        "phot_g_mean_mag": np.array([12.3, 15.1, 17.25, 19.5, 6.125, nan]),
        "phot_g_mean_mag_error": np.array([0.003, 0.003, 0.0035, 0.006, 0.01, nan]),
        "phot_bp_mean_mag": np.array([12.7, 15.6, 18.0, nan, 6.3, nan]),
        "phot_bp_mean_mag_error": np.array([0.003, 0.005, 0.02, nan, 0.01, nan]),
        "parallax": np.array([2.5, 1.25, 0.5, -0.3, 25.0, nan]),
        "parallax_error": np.array([0.02, 0.03, 0.08, 0.4, 0.05, nan]),
        "j_m": np.array([11.2, 14.0, nan, nan, 5.0, nan]),
        "j_m_error": np.array([0.03, 0.035, nan, nan, 0.2, nan]),
        "w1mpro": np.array([10.5, 13.2, 16.9, 17.9, nan, nan]),
        "w1mpro_error": np.array([0.023, 0.03, 0.2, nan, nan, nan]),
        "gMeanPSFMag": np.array([-999.0, 15.7, 18.1, 20.5, -999.0, -999.0]),
        "gMeanPSFMag_error": np.array([-999.0, 0.02, 0.02, 0.05, -999.0, -999.0]),
        "cluster": np.array(["a", "a", "b", "b", "c", "c"]),
        "label_teff": np.array([5800.0, 4500.0, 6100.0, nan, 9000.0, nan]),
        "label_teff_error": np.array([50.0, 60.0, 70.0, nan, 200.0, nan]),
    }


def same(a, b, tolerance=1e-6):
    assert a.surveys == b.surveys
    for name in a.surveys:
        one, two = a.survey(name), b.survey(name)
        assert one.channels == two.channels and one.units == two.units
        np.testing.assert_array_equal(one.state, two.state)
        np.testing.assert_allclose(one.value, two.value, rtol=tolerance)
        np.testing.assert_allclose(one.error, two.error, rtol=tolerance)
    assert a.parameters.keys() == b.parameters.keys()
    for key, label in a.parameters.items():
        np.testing.assert_allclose(label, b.parameters[key], rtol=tolerance)


def refused(table, *words, surveys=SURVEYS, **options):
    with pytest.raises(TableError) as caught:
        read_table(table, surveys, **options)
    message = str(caught.value)
    assert message.isprintable()
    for word in words:
        assert str(word) in message, message
    return message
