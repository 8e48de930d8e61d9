"""What every host must do with the Clearance plugin, as a kit that anybody's host can run.

    from clearance_hooks.testing import run

    failures = run(MyDriver(), folder)        # with pytest: see `clearance_hooks.testing.for_pytest`

A driver plays one turn of the real host against the stage: a provider on this machine that counts requests
(`stage.base_url`), a configuration file (`stage.config`), and a tool whose executions are counted (`stage.echo`).
Scenarios look at those counts and at the ledger, never at what the host says of itself. Needs `clearance[demo]`.
"""

from clearance_hooks.testing.scenarios import SCENARIOS
from clearance_hooks.testing.stage import Driver, Failure, Reply, Scenario, Stage, Violation


def run(driver: Driver, folder: str) -> list[Failure]:
    """Every scenario that fails, in order; those that the host cannot play are left out."""
    failures = (scenario.failure(driver, folder) for scenario in SCENARIOS if scenario.fits(driver))
    return [failure for failure in failures if failure]


__all__ = ["SCENARIOS", "Driver", "Failure", "Reply", "Scenario", "Stage", "Violation", "run"]
