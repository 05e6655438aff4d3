"""``python -m attacks``: try the campaigns and print what became of each kind of attack."""

import sys
import time
from collections import Counter
from pathlib import Path

import click
from tqdm import tqdm

from attacks.campaign import VERDICTS, NotHereError, Outcome
from attacks.ledger import Ledger, code_version
from attacks.table import CAMPAIGNS
from attacks.workers import outcomes
from pipeline.core.printable import printable
from pipeline.core.text_table import aligned
from stages.commands.options import FiniteRange

SHOWN = 10
"""Cases of a campaign that broke something: that many are printed, the ledger has all."""


@click.command(help=f"Attack what NAMES say, or everything: {', '.join(CAMPAIGNS)}.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--seed", default=0, show_default=True, help="Of the cases; another one makes others.")
@click.option("--cases", type=click.IntRange(min=1), help="Of each campaign; without it, as many as its table says.")
@click.option("--short", is_flag=True, help="As many cases as the tests try.")
@click.option("--minutes", type=FiniteRange(min=0), help="Begin no case after so long; call again to go on.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Cases at a time.")
@click.option("--only", type=int, help="Try this case alone, and do not keep what becomes of it.")
@click.option("--ledgers", type=click.Path(path_type=Path), default=Path(".attacks"), show_default=True)
def main(
    names: tuple[str, ...],
    *,
    seed: int,
    cases: int | None,
    short: bool,
    minutes: float | None,
    jobs: int,
    only: int | None,
    ledgers: Path,
) -> None:
    """Run the campaigns one after another; exit with 1 where anything broke."""
    unknown = [name for name in names if name not in CAMPAIGNS]
    if unknown:
        raise click.BadParameter(f"no campaign {unknown[0]!r}; there are {', '.join(CAMPAIGNS)}")
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    version = code_version()
    broke = False
    for name in names or CAMPAIGNS:
        campaign = CAMPAIGNS[name]
        wanted = range(cases or (campaign.short if short else campaign.cases)) if only is None else [only]
        ledger = Ledger(ledgers / f"{name}-{seed}.jsonl", version) if only is None else None
        known = ledger.outcomes if ledger else {}
        found = {case: known[case] for case in wanted if case in known}
        left = [case for case in wanted if case not in found]
        click.echo(f"{name}: {campaign.summary}")
        bar = tqdm(total=len(wanted), initial=len(found), unit="case", disable=None, leave=False)
        try:
            for case, outcome in outcomes(
                name, campaign, left, seed=seed, jobs=jobs, until=lambda: time.monotonic() > end
            ):
                found[case] = outcome
                if ledger:
                    ledger.add(case, outcome)
                bar.update()
        except NotHereError as error:
            click.echo(f"  not tried: {error}\n")
            continue
        except KeyboardInterrupt:
            _report(name, found, len(wanted), seed)
            click.echo("interrupted; the same command goes on")
            sys.exit(130)
        finally:
            bar.close()
        broke |= _report(name, found, len(wanted), seed)
    sys.exit(1 if broke else 0)


def _report(name: str, found: dict[int, Outcome], wanted: int, seed: int) -> bool:
    """Print the table of kinds and verdicts and what broke; return whether anything did."""
    counts = Counter((outcome.kind, outcome.verdict) for outcome in found.values())
    kinds = sorted({kind for kind, _ in counts})
    rows = [[printable(kind), *(str(counts[kind, verdict]) for verdict in VERDICTS)] for kind in kinds]
    totals = [str(sum(counts[kind, verdict] for kind in kinds)) for verdict in VERDICTS]
    for line in aligned(["what was done", *VERDICTS], [*rows, [f"{len(found)} of {wanted} cases", *totals]]):
        click.echo(f"  {line}")
    broken = sorted(case for case, outcome in found.items() if outcome.verdict == "broke")
    for case in broken[:SHOWN]:
        click.echo(f"  python -m attacks {name} --seed {seed} --only {case}: {found[case].kind}: {found[case].detail}")
    if len(broken) > SHOWN:
        click.echo(f"  and {len(broken) - SHOWN} more, in the ledger")
    click.echo()
    return bool(broken)


if __name__ == "__main__":
    main()
