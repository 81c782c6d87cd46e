"""Objects of the toy that pass as real: every channel is shifted."""

from sbi_da.records import Measurements, Records
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator


def real_objects(n, seed, shift=0.8):
    simulator = get_simulator("linear_gaussian")
    records = simulate(simulator, simulator.surveys(), n, seed)
    seen = {}
    for name in records.surveys:
        m = records.survey(name)
        seen[name] = Measurements(m.channels, m.units, m.value + shift, m.error, m.state)
    return Records.build(seen, parameters=records.parameters, attrs={"domain": "real"})
