"""`shoal diff`: where two runs part."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..rl import difference
from ..runtime import InputError
from .flags import parse
from .output import result_output


@dataclass(frozen=True, kw_only=True)
class DiffFlags:
    """What to print."""

    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal diff` and return the exit code: 0 if no iteration that both have is different, 1 if one is."""
    rest, folders = list(arguments), []
    while rest and not rest[0].startswith("-"):
        folders.append(rest.pop(0))
    about = (
        "Compare what two runs have recorded, and name what is different first: settings, then the first iteration, "
        "and of it the random stream, the observations, the batch or the weights: shoal diff RUN_A RUN_B"
    )
    flags: DiffFlags = parse("shoal diff", about, {"comparison": DiffFlags}, rest).build(DiffFlags)
    if len(folders) != 2 or not all(folders):
        given = len([folder for folder in folders if folder])
        raise InputError(f"two runs are compared, but {given} are given. Write: shoal diff runs/a runs/b")
    with result_output(flags.json) as print_result:
        found = difference(*folders)
        lines = [
            f"{kind} {name}: {one!r} and {other!r}"
            for kind, values in (("setting", found.settings), ("machine", found.machine))
            for name, (one, other) in values.items()
        ]
        both = min(found.iterations)
        if found.parting is None:
            of_each = "" if len(set(found.iterations)) == 1 else f" that both have (of {max(found.iterations)})"
            lines.append(f"the same in all {both} iterations{of_each}")
        else:
            more = ", ".join(found.parting.quantities)
            lines.append(f"iteration {found.parting.iteration}: {found.parting.first}   (different: {more})")
        print_result(found.to_json(), "\n".join(lines))
    return 0 if found.same else 1
