"""Tables as nobody should hand them in: entries, types, columns and files that are wrong in many ways (strategies of hypothesis)."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

VALUES = ["phot_g_mean_mag", "phot_bp_mean_mag", "parallax", "j_m", "w1mpro"]
ERRORS = {
    "phot_g_mean_mag": "phot_g_mean_mag_error", "phot_bp_mean_mag": "phot_bp_mean_mag_error", "parallax": "parallax_error",
    "j_m": "j_msigcom", "w1mpro": "w1sigmpro",
}
NUMBERS = st.one_of(
    st.none(), st.floats(8, 20), st.floats(0.001, 0.5),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, -999.0, 99.0, 1e300, -1e300, 1e-300, 5e-324, 1e20, 3.4e38]), st.floats(),
)
TEXTS = st.one_of(
    st.none(), st.sampled_from(["", " 12.5 ", "nan", "NaN", "inf", "1e400", "bright", "--", "null", "12,5"]),
    st.sampled_from(["0x1F", "\x00", "１２", "1_000"]),
    st.text(max_size=6),
)
IDENTIFIERS = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-5, 5), st.integers(2**62, 2**63 - 1)), max_size=9).map(lambda v: pa.array(v, pa.int64())),
    st.lists(st.one_of(st.none(), st.sampled_from([np.nan, np.inf, 0.5, 2.0**60, 3.0, -4.0])), max_size=9).map(
        lambda v: pa.array(v, pa.float64())
    ),
    st.lists(st.one_of(st.none(), st.sampled_from(["", " ", "a", "a ", "Gaia DR3 1"]), st.text(max_size=4)), max_size=9).map(
        lambda v: pa.array(v, pa.string())
    ),
    st.lists(st.one_of(st.none(), st.booleans()), max_size=9).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.integers(0, 2**64 - 1), max_size=9).map(lambda v: pa.array(v, pa.uint64())),
)


def _odd(size):
    """Columns of types that hold no numbers, or hold them strangely."""
    day = datetime.datetime(2020, 1, 1)
    return st.sampled_from([
        pa.nulls(size), pa.array([True] * size), pa.array([day] * size, pa.timestamp("us")),
        pa.array([[1.0, 2.0]] * size, pa.list_(pa.float64())),
        pa.array([[1.0, 2.0]] * size, pa.list_(pa.float64(), 2)), pa.array([{"a": 1.0}] * size), pa.array([b"12.0"] * size),
        pa.array([decimal.Decimal("12.5")] * size), pa.array(["12.0"] * size).dictionary_encode(), pa.array([12] * size, pa.uint8()),
        pa.array([12.0] * size, pa.float16()), pa.array(["12.0"] * size, pa.large_string()), pa.array([12] * size, pa.duration("s")),
        pa.array([None] * size, pa.float32()), pa.array([day.date()] * size), pa.array(["12"] * size, pa.string_view()),
    ])


def _column(size):
    number = st.lists(NUMBERS, min_size=size, max_size=size)
    return st.one_of(
        number.map(lambda v: pa.array(v, pa.float64())),
        number.map(lambda v: pa.array(np.array([np.nan if x is None else x for x in v], "f4"))),
        st.lists(st.one_of(st.none(), st.integers(-2, 30)), min_size=size, max_size=size).map(lambda v: pa.array(v, pa.int32())),
        st.lists(TEXTS, min_size=size, max_size=size).map(lambda v: pa.array(v, pa.string())), _odd(size),
    )


@st.composite
def tables(draw):
    """An Arrow table."""
    ids = draw(IDENTIFIERS)
    size = len(ids)
    names = draw(st.lists(st.sampled_from(VALUES), unique=True, min_size=draw(st.integers(0, 9)) > 0, max_size=4))
    fields = {}
    if draw(st.integers(0, 9)):
        fields["source_id"] = ids
    for name in names:
        fields[name] = draw(_column(size))
        if draw(st.integers(0, 29)):
            fields[ERRORS[name]] = draw(_column(size))
    others = ["", "ra", "e_j_m", "id", "flags", "theta_1_mean", *(["J_M", "PARALLAX"] if draw(st.integers(0, 9)) == 0 else [])]
    for name in draw(st.lists(st.sampled_from(others), unique=True, max_size=2)):
        fields[name] = draw(_column(size))
    order = draw(st.permutations(list(fields)))
    unit = st.sampled_from(["mag", "mag", "mag", "", "Jy", "quux", "arcsec", "mag(AB)"])
    units = draw(st.dictionaries(st.sampled_from(VALUES), unit, max_size=draw(st.integers(0, 9)) == 0))
    schema = pa.schema([pa.field(n, fields[n].type, metadata={"unit": units[n]} if n in units else None) for n in order])
    return pa.Table.from_arrays([fields[n] for n in order], schema=schema)


@st.composite
def texts(draw):
    """The bytes of what claims to be a CSV file."""
    spoilt = st.sampled_from(["", "12.5", "0.02", "-1", "nan", "bright", '"', '"a,b"', "'", "1e999", "\t", "ü", "\x00"])
    entry = st.one_of(spoilt, st.text(max_size=5))
    pairs = draw(st.lists(st.sampled_from([f"{value},{error}" for value, error in ERRORS.items()]), unique=True, max_size=3))
    others = draw(st.lists(st.sampled_from(["ra", "", "j_m"]), max_size=1))
    header = ",".join([*draw(st.permutations([*pairs, "source_id"])), *others]).split(",")
    many = st.one_of(st.just(len(header)), st.just(len(header)), st.integers(0, 8))
    lines = draw(st.lists(many.flatmap(lambda n: st.lists(entry, min_size=n, max_size=n)), max_size=6))
    text = draw(st.sampled_from(["\n", "\r\n"])).join([",".join(header), *(",".join(line) for line in lines)])
    content = text.encode("utf-8", "surrogatepass")
    return content + draw(st.sampled_from([b"", b"\n", b"\xff\xfe\n", b'"']))
