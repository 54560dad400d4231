"""`python -m benchmarks.compare`: trains, measures, writes the page. See `benchmarks.compare`."""

import argparse
import pathlib

import benchmarks.compare
from benchmarks.compare import equal_time, lengths, little_data, page
from benchmarks.compare.results import Results
from benchmarks.compare.settings import SMOKE, Settings

PARTS = {"little": little_data.run, "lengths": lengths.run, "time": equal_time.run}


def main() -> None:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=benchmarks.compare.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/compare"))
    parser.add_argument("--smoke", action="store_true", help="two steps each, to try it")
    options = parser.parse_args()
    results = Results(options.folder)
    for part in options.only:
        PARTS[part](SMOKE if options.smoke else Settings(), results)
    written = options.folder / "COMPARISON.md"
    written.write_text(page.render(results), encoding="utf-8")
    page.draw(results, options.folder / page.PICTURE)
    print(f"wrote {written} and {page.PICTURE}")


if __name__ == "__main__":
    main()
