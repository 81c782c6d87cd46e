import json
import shutil
import time

import numpy as np
import pytest

from sbi_da.errors import ArtefactError, SbiDaError, UnknownNameError
from sbi_da.records import (
    ABSENT,
    LIMIT,
    OBSERVED,
    CoverageMissing,
    DepthMissing,
    EmpiricalMissing,
    Measurements,
    MixedMissing,
    NothingMissing,
    Records,
    UniformMissing,
    split_by_group,
)


def measurements(n=40, channels=("a", "b"), seed=0, units=None):
    rng = np.random.default_rng(seed)
    shape = (n, len(channels))
    state = rng.choice([ABSENT, OBSERVED, LIMIT], shape, p=[0.3, 0.6, 0.1]).astype(np.uint8)
    value, error = rng.normal(15, 2, shape), rng.uniform(0.01, 0.1, shape)
    value[state == ABSENT] = np.nan
    error[state == ABSENT] = np.nan
    return Measurements(tuple(channels), units or ("mag",) * len(channels), value, error, state)


def records(n=40, **options):
    held = {"zebra": measurements(n, seed=1), "ant": measurements(n, ("x", "y", "z"), 2, ("mas", "mag", ""))}
    labels = {"teff": np.linspace(3000, 9000, n), "age": np.linspace(6, 10, n)}
    columns = {"group": np.array([f"cluster {i // 4}" for i in range(n)]), "log_weight": np.linspace(-1, 1, n)}
    return Records.build(held, **({"parameters": labels, "columns": columns, "attrs": {"seed": 3}} | options))


def equal(a, b):
    assert a.surveys == b.surveys and (a.ids == b.ids).all() and a.ids.dtype == b.ids.dtype
    for name in a.surveys:
        one, two = a.survey(name), b.survey(name)
        assert one.channels == two.channels and one.units == two.units
        for field in ("value", "error", "state"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    for held in ("parameters", "columns"):
        assert set(getattr(a, held)) == set(getattr(b, held))
        for key, values in getattr(a, held).items():
            np.testing.assert_array_equal(values, getattr(b, held)[key])
    assert list(a.parameters) == list(b.parameters)
    assert a.attrs == b.attrs


@pytest.mark.parametrize("ids", [None, 2**62 + np.arange(40), np.array([f"Étoile {i}" for i in range(40)])])
def test_to_disk_and_back(tmp_path, ids):
    before = records(ids=ids)
    before.save(tmp_path / "r.zarr")
    after = Records.open(tmp_path / "r.zarr")
    equal(before, after)
    equal(before.isel([3, 1]), after.isel([3, 1]))
    assert after.surveys == ["zebra", "ant"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]
    again = after.save(tmp_path / "again.zarr")
    equal(Records.open(again), before)


def test_one_object_and_nothing_but_absence(tmp_path):
    one = measurements(1)
    absent = Measurements(one.channels, one.units, one.value * np.nan, one.error * np.nan, one.state * 0)
    before = Records.build({"a": absent})
    equal(Records.open(before.save(tmp_path / "r.zarr")), before)
    assert before.pattern().tolist() == ["none"]


def test_nothing_is_written_over(tmp_path):
    records().save(tmp_path / "r.zarr")
    with pytest.raises(SbiDaError, match="exists already"):
        records(8).save(tmp_path / "r.zarr")
    assert len(Records.open(tmp_path / "r.zarr")) == 40


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    import xarray as xr

    real = xr.DataTree.to_zarr

    def full(tree, path, **options):
        real(tree, path, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_zarr", full)
    with pytest.raises(SbiDaError, match="r.zarr: cannot be written .*No space left") as caught:
        records().save(tmp_path / "r.zarr")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SbiDaError, match="cannot be written"):
        records().save(tmp_path / "file" / "r.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def chunks(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0].isdigit())


def test_truncated_records_are_refused(tmp_path):
    whole = records().save(tmp_path / "whole.zarr")
    assert len(chunks(whole)) > 8
    for i, chunk in enumerate(chunks(whole)):
        for harm in ("lost", "cut"):
            copy = tmp_path / f"{harm}{i}.zarr"
            shutil.copytree(whole, copy)
            victim = copy / chunk.relative_to(whole)
            if harm == "lost":
                victim.unlink()
            else:
                victim.write_bytes(victim.read_bytes()[:3])
            with pytest.raises(ArtefactError, match=copy.name) as caught:
                Records.open(copy)
            assert "\n" not in str(caught.value)
    shutil.rmtree(whole / "surveys" / "ant")
    with pytest.raises(ArtefactError):
        Records.open(whole)


def test_what_is_not_records(tmp_path):
    with pytest.raises(ArtefactError, match="no such records folder"):
        Records.open(tmp_path / "nowhere.zarr")
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(ArtefactError, match="no such records folder"):
        Records.open(tmp_path / "file.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ArtefactError, match="empty.zarr"):
        Records.open(tmp_path / "empty.zarr")


def test_another_schema_is_refused(tmp_path):
    path = records().save(tmp_path / "r.zarr")
    attrs = json.loads((path / ".zattrs").read_text())
    (path / ".zattrs").write_text(json.dumps(attrs | {"schema": 99}))
    with pytest.raises(ArtefactError, match="schema 99.*reads 1.*again"):
        Records.open(path)


def test_build_refuses_what_does_not_fit():
    with pytest.raises(SbiDaError, match="one length"):
        Records.build({"a": measurements(3), "b": measurements(4)})
    with pytest.raises(SbiDaError, match="7.*occurs 2 times"):
        Records.build({"a": measurements(3)}, ids=np.array([7, 1, 7]))
    m = measurements(3)
    with pytest.raises(SbiDaError, match="'a'.*shape"):
        Records.build({"a": Measurements(("a",), ("mag",), m.value, m.error, m.state)})


def test_select_isel_sel():
    r = records(ids=np.arange(100, 140))
    assert r.select(["ant"]).surveys == ["ant"]
    np.testing.assert_array_equal(r.select(["ant"]).survey("ant").value, r.survey("ant").value)
    with pytest.raises(UnknownNameError, match="'bee'.*zebra, ant"):
        r.select(["bee"])
    some = r.isel(np.array([5, 2]))
    assert some.ids.tolist() == [105, 102] and some.columns["group"].tolist() == ["cluster 1", "cluster 0"]
    np.testing.assert_array_equal(some.survey("ant").state, r.survey("ant").state[[5, 2]])
    np.testing.assert_array_equal(some.parameters["teff"], r.parameters["teff"][[5, 2]])
    mask = np.arange(40) % 2 == 0
    assert len(r.isel(mask)) == 20 and len(r.isel(slice(0, 3))) == 3
    for identifier in (107, "107"):
        assert r.sel(identifier).ids.tolist() == [107]
    with pytest.raises(SbiDaError, match="no object.*99"):
        r.sel(99)
    assert r.attrs["seed"] == 3 and r.isel(mask).attrs == r.attrs


def test_pattern():
    state = np.array([[1, 0], [0, 0], [2, 2], [0, 1]], np.uint8)
    one = Measurements(("a", "b"), ("mag", "mag"), np.ones((4, 2)), np.ones((4, 2)), state)
    two = Measurements(("a", "b"), ("mag", "mag"), np.ones((4, 2)), np.ones((4, 2)), state[::-1])
    assert Records.build({"p": one, "q": two}).pattern().tolist() == ["p+q", "q", "p", "p+q"]


def test_a_hundred_thousand_objects_are_quick():
    n = 100_000
    held = {name: measurements(n, "abcd", i) for i, name in enumerate("pqrs")}
    start = time.perf_counter()
    r = Records.build(held)
    patterns = r.pattern()
    EmpiricalMissing.from_states(np.concatenate([m.state for m in held.values()], 1))
    assert time.perf_counter() - start < 10
    assert len(patterns) == n and len(set(patterns[:1000])) > 1


SURVEY = np.array([0, 0, 1, 2, 2, 2])


def test_empirical_law_has_the_joint_frequencies():
    rng = np.random.default_rng(0)
    kinds = np.array([[1, 1, 0, 2, 0, 0], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], np.uint8)
    state = kinds[rng.choice(3, 500, p=[0.5, 0.3, 0.2])]
    law = EmpiricalMissing.from_states(state)
    assert law == EmpiricalMissing.model_validate_json(law.model_dump_json())
    keep = law.keep(np.ones((20_000, 6), np.uint8), SURVEY, rng)
    rows, counts = np.unique(keep, axis=0, return_counts=True)
    true_rows, true_counts = np.unique(state != ABSENT, axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, true_rows)
    np.testing.assert_allclose(counts / 20_000, true_counts / 500, atol=0.015)


def test_uniform_law_covers_all_subsets_of_surveys():
    rng = np.random.default_rng(1)
    keep = UniformMissing(channels=0.0).keep(np.ones((16_000, 6), np.uint8), SURVEY, rng)
    assert (keep[:, 0] == keep[:, 1]).all() and (keep[:, 3] == keep[:, 5]).all()
    _, counts = np.unique(keep[:, [0, 2, 3]], axis=0, return_counts=True)
    np.testing.assert_allclose(counts, 2000, rtol=0.12)
    lossy = UniformMissing(channels=0.2).keep(np.ones((16_000, 6), np.uint8), SURVEY, rng)
    assert lossy.mean() == pytest.approx(0.5 * 0.8, abs=0.01)
    _, counts = np.unique(lossy, axis=0, return_counts=True)
    assert len(counts) == 64


def test_coverage_law_gives_each_survey_its_share():
    rng = np.random.default_rng(1)
    law = CoverageMissing(surveys=[0.9, 0.0, 0.3], channels=0.0)
    keep = law.keep(np.ones((16_000, 6), np.uint8), SURVEY, rng)
    assert (keep[:, 0] == keep[:, 1]).all() and (keep[:, 3] == keep[:, 5]).all()
    np.testing.assert_allclose(keep[:, [0, 2, 3]].mean(0), [0.9, 0.0, 0.3], atol=0.015)
    assert np.corrcoef(keep[:, 0], keep[:, 3])[0, 1] == pytest.approx(0.0, abs=0.03)
    with pytest.raises(SbiDaError, match="2 probabilities, there are 3 surveys"):
        CoverageMissing(surveys=[0.5, 0.5]).keep(np.ones((5, 6), np.uint8), SURVEY, rng)


def test_depth_law_drops_limits_and_nothing_else():
    rng = np.random.default_rng(2)
    state = rng.integers(0, 3, (4000, 6)).astype(np.uint8)
    keep = DepthMissing().keep(state, SURVEY, rng)
    np.testing.assert_array_equal(keep, state != LIMIT)
    keep = DepthMissing(fraction=0.3).keep(state, SURVEY, rng)
    assert keep[state != LIMIT].all()
    assert keep[state == LIMIT].mean() == pytest.approx(0.7, abs=0.03)


def test_mixed_and_no_law():
    rng = np.random.default_rng(3)
    state = np.full((8000, 6), LIMIT)
    assert NothingMissing().keep(state, SURVEY, rng).all()
    law = MixedMissing(laws=[NothingMissing(), DepthMissing()], weights=[3, 1])
    keep = law.keep(state, SURVEY, rng)
    assert (keep.all(1) | ~keep.any(1)).all()
    assert keep.all(1).mean() == pytest.approx(0.75, abs=0.02)
    assert MixedMissing.model_validate(law.model_dump()) == law


def test_what_is_lost_is_absent_and_nothing_else_changes():
    from sbi_da.simulation import lose

    held = {"p": measurements(50), "q": measurements(50, "xyz", 5)}
    after, _, _ = lose(held, UniformMissing(), np.random.default_rng(4))
    for name, m in after.items():
        before = held[name]
        changed = m.state != before.state
        assert changed.any() and (m.state[changed] == ABSENT).all()
        np.testing.assert_array_equal(m.value, before.value)


def test_splits_keep_groups_together_and_rows_in_place():
    big = records(400)
    parts = split_by_group(big, [0.6, 0.2, 0.2], seed=1)
    groups = [set(p.columns["group"]) for p in parts]
    assert sum(len(p) for p in parts) == 400 and min(map(len, parts)) > 20
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    small = split_by_group(big.isel(slice(37, 200)), [0.6, 0.2, 0.2], seed=1)
    for part, whole in zip(small, groups, strict=True):
        assert set(part.columns["group"]) <= whole
    other = [set(p.columns["group"]) for p in split_by_group(big, [0.6, 0.2, 0.2], seed=2)]
    assert other != groups
    with pytest.raises(ValueError, match="sum to 1"):
        split_by_group(big, [0.5, 0.2])


def test_without_groups_each_object_is_its_own():
    r = records(2000, columns={})
    a, b = split_by_group(r, [0.7, 0.3])
    assert len(a) / 2000 == pytest.approx(0.7, abs=0.04)
    assert not set(a.ids) & set(b.ids)
