"""Train, query a real table with some of its surveys, and look at one star."""

from sbi_da.config import load_config
from sbi_da.inference import read_objects
from sbi_da.runs import train

TABLE = __file__.replace("ten_lines.py", "green2020_sample.parquet")


def main(overrides=(), out="runs/stars", table=TABLE):
    estimator = train(load_config("stars", overrides), out)
    stars = read_objects(estimator, table)
    posterior = estimator(stars)
    print(posterior.marginal(["teff", "logg", "feh"]).summary())
    star = estimator(stars.isel(slice(0, 1)).select(["gaia", "wise"]))
    print(star.sample(1000).mean("draw"))
    print(star.given(feh=0.0).sample(1000).mean("draw"))
    return posterior


if __name__ == "__main__":
    main()
