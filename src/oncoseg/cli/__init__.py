"""The command line: `oncoseg COMMAND`. Everything heavy is imported inside the commands.

Exit codes: 0 done, 1 a bug in oncoseg, 2 something the user can mend, 3 a rerun came to other numbers,
75 a training's time budget is spent and it can go on, 128 + n stopped by signal n (130 for Ctrl-C, 143 for
SIGTERM, 138 for SIGUSR1).
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from oncoseg import __version__
from oncoseg.cli import (
    convert,
    data,
    evaluation,
    leaks,
    networks,
    plan,
    recipes,
    repeating,
    runs,
    study,
    terminal,
)
from oncoseg.errors import ElsewhereError, OncosegError
from oncoseg.limits import NOT_ENOUGH, is_out_of_memory
from oncoseg.stopping import Terminated, name_of, orderly_termination

MENDABLE, BUG, INTERRUPTED = 2, 1, 130
"""Exit codes besides 0."""

SIGNALLED = 128
"""Added to the number of another signal."""

FIELD_COMMANDS = {
    "train": runs.TRAIN_FLAGS,
    "prepare": data.PREPARE_FLAGS,
    "plan": plan.PLAN_FLAGS,
    "study": study.STUDY_FLAGS,
}
"""Commands that take a recipe's fields as flags and list them in their help → their other flags."""


GO_ON = ("convert", "demo", "predict", "prepare", "rerun", "study", "train")
"""Commands that keep what was finished, and go on from there when they are called again."""


def _example(*lines: str) -> str:
    return "\n".join(["Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def _make_app() -> App:
    app = App(
        name="oncoseg",
        version=__version__,
        help="Find tumours in MRI and CT: raw files to a trained model, an evaluation and a report.",
        help_format="plaintext",
        help_epilogue="Every command also takes --debug, which shows the traceback of an error.\n\n"
        + _example("oncoseg demo", "oncoseg train --help"),
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    listing = App(
        name="recipes", help_epilogue=_example("oncoseg recipes", "oncoseg recipes show unified-mri-ct")
    )
    listing.default(recipes.list_all)
    listing.command(
        recipes.show, help_epilogue=_example("oncoseg recipes show unified-mri-ct > my-recipe.json")
    )
    listing.command(recipes.describe, help_epilogue=_example("oncoseg recipes describe unified-mri-ct"))
    app.command(listing)
    app.command(_networks())
    app.command(_studies())
    two = "--data mri=data/lgg --data ct=data/lidc"
    examples: dict[Callable[..., Any], list[str]] = {
        data.inspect: [
            "oncoseg inspect data/lgg",
            "oncoseg inspect data/brats --layout brats --json found.json",
        ],
        convert.convert: [
            "oncoseg convert data/brats --to nnunet --out nnUNet_raw/Dataset501_Glioma",
            "oncoseg convert data/lidc --to nifti --all-readers --out lidc-nifti",
            "oncoseg convert clinic/cases.csv --to nifti --out shared --key-file secret/key.csv",
            "oncoseg convert clinic/dicom --deidentify --out shared",
        ],
        data.phantom: ["oncoseg phantom brain-mri phantoms/mri --cases 12 --seed 1"],
        data.prepare: [
            f"oncoseg prepare unified-mri-ct {two} --store store",
            "oncoseg prepare unified-mri-ct --help",
        ],
        plan.plan: [
            f"oncoseg plan unified-mri-ct {two} --out planned.json",
            "oncoseg plan unified-mri-ct --data mri=data/brats --only mri --memory-gib 20",
            "oncoseg plan unified-mri-ct --data mri=data/brats --only mri --preparation.spacing-mm [1,1,2]",
        ],
        runs.train: [
            f"oncoseg train unified-mri-ct {two} --out runs/first",
            "oncoseg train unified-mri-ct ... --training.max-epochs 3 --modalities.ct.scaling window",
            "oncoseg train --resume --out runs/first",
            "oncoseg train --resume --out runs/first --extend 10",
            "oncoseg train unified-mri-ct --help",
        ],
        study.study: [
            "oncoseg study aspp-attention --data mri=data/brats --out studies/aspp",
            "oncoseg study aspp-attention --dry-run --training.max-epochs 5",
            "oncoseg study my-study.json --data mri=data/brats --out studies/mine --minutes-each 30",
            "oncoseg study --resume --out studies/aspp --max-minutes 55",
        ],
        repeating.rerun: [
            "oncoseg rerun runs/first --out runs/again",
            "oncoseg rerun runs/first --data mri=moved/lgg --out runs/again",
        ],
        runs.predict: ["oncoseg predict runs/first data/new_patients --modality mri --out predictions"],
        evaluation.evaluate: [
            "oncoseg evaluate runs/first --split test",
            "oncoseg evaluate runs/first --threshold 0.3 --out scores/lower",
            "oncoseg evaluate --prediction masks --truth data/brats --class tumour=1,2,4 --out scores",
        ],
        evaluation.compare: ["oncoseg compare ours=scores/ours theirs=scores/theirs --out comparison"],
        evaluation.agreement: ["oncoseg agreement data/lidc --out scores/readers"],
        leaks.leaks: [
            "oncoseg leaks runs/first",
            "oncoseg leaks --side train=data/brats --side test=data/clinic",
        ],
        runs.report: ["oncoseg report runs/first"],
        runs.demo: ["oncoseg demo --out oncoseg-demo"],
    }
    for command, lines in examples.items():
        app.command(command, help_epilogue=_example(*lines))
    return app


def _networks() -> App:
    listing = App(name="networks", help_epilogue=_example("oncoseg networks", "oncoseg networks show unetr"))
    listing.default(networks.list_all)
    listing.command(networks.show, help_epilogue=_example("oncoseg networks show segresnet"))
    return listing


def _studies() -> App:
    listing = App(
        name="studies", help_epilogue=_example("oncoseg studies", "oncoseg studies describe aspp-attention")
    )
    listing.default(study.list_all)
    listing.command(study.show, help_epilogue=_example("oncoseg studies show aspp-attention > my-study.json"))
    listing.command(study.describe, help_epilogue=_example("oncoseg studies describe aspp-attention"))
    return listing


app = _make_app()
"""The commands. `main` runs them and turns errors into messages and exit codes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `oncoseg`; None takes them from the process.

    Returns:
        The exit code.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        with orderly_termination():
            return _run(tokens)
    except ElsewhereError:
        return MENDABLE
    except (OncosegError, CycloptsError) as error:
        return _failed(str(error), MENDABLE, debug)
    except Terminated as asked:
        return _failed(f"Stopped by {name_of(asked)}; {_kept(tokens)}.", SIGNALLED + asked.signal, debug)
    except KeyboardInterrupt:
        return _failed(f"Interrupted; {_kept(tokens)}.", INTERRUPTED, debug)
    except OSError as error:
        if is_out_of_memory(error):
            return _failed(NOT_ENOUGH, MENDABLE, debug)
        if error.filename is None or error.strerror is None:
            return _failed(_bug(error), BUG, debug)
        return _failed(f"Cannot use {error.filename}: {error.strerror}.", MENDABLE, debug)
    except Exception as error:
        if is_out_of_memory(error):
            return _failed(NOT_ENOUGH, MENDABLE, debug)
        return _failed(_bug(error), BUG, debug)


def _run(tokens: list[str]) -> int:
    takes_fields = bool(tokens) and tokens[0] in FIELD_COMMANDS
    if takes_fields:
        _check_plain_flags(tokens)
    code = app(
        tokens,
        console=terminal.stdout(),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    if takes_fields and {"--help", "-h"} & set(tokens):
        print_fields = study.print_study_fields if tokens[0] == "study" else recipes.print_fields
        print_fields(None if tokens[1].startswith("-") else tokens[1])
    return code if isinstance(code, int) else 0


def _check_plain_flags(tokens: Sequence[str]) -> None:
    """Find misspelt flags of a command that otherwise takes any flag for a field; fields have a dot."""
    plain = [token[2:].partition("=")[0] for token in tokens if token.startswith("--")]
    own = FIELD_COMMANDS[tokens[0]]
    unknown = [flag for flag in plain if "." not in flag and flag not in own]
    if unknown:
        from oncoseg.cli.fields import check_flags

        check_flags(None, unknown, own)


def _kept(tokens: Sequence[str]) -> str:
    if not set(tokens[:1]) & set(GO_ON):
        return "there is no complete result"
    out = runs.begun(tokens) if tokens[0] == "train" else None
    return "what was finished is kept" + (f". Go on with: oncoseg train --resume --out {out}" if out else "")


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    terminal.print_error(message)
    return code


def _bug(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]
    return f"Unexpected error, probably a bug in oncoseg ({what}). Run again with --debug to see where."
