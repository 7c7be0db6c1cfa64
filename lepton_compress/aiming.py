"""The commands about targets: which there are, and what one is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_compress.boundary import working
from lepton_compress.errors import RecipeError
from lepton_compress.options import AsJson, complete_recipe, complete_target, deliver

Beside = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="A recipe, whose folder `targets` is looked into too.",
        autocompletion=complete_recipe,
    ),
]
TargetName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name.", autocompletion=complete_target)
]

targeting = typer.Typer(
    invoke_without_command=True,
    help="List the targets that recipes can name.",
    epilog="Example: `lepton-compress targets`",
)


@targeting.callback()
def targets(context: typer.Context, recipe: Beside = None, as_json: AsJson = False) -> None:
    """List the targets that recipes can name, or show one.

    They are YAML files: those of the tool, of installed packages, of the folder that the
    environment variable LEPTON_TARGETS names, and of the folder `targets` beside a recipe.
    """
    if context.invoked_subcommand is not None:
        return
    with working(quiet=as_json) as stage:
        from lepton_compress import target_pages
        from lepton_compress.report import targets as view

        rows = target_pages.listing(_folder(recipe))
        deliver(stage, rows, view.show_listing, as_json=as_json)
        if broken := [row.name for row in rows if row.broken]:
            problem = f"{len(broken)} of {len(rows)} target files cannot be used"
            raise RecipeError(problem, where=", ".join(broken), mend="see the table")


@targeting.command("show", epilog="Example: `lepton-compress targets show ethos-u55-128`")
def targets_show(
    context: typer.Context, name: TargetName, recipe: Beside = None, as_json: AsJson = False
) -> None:
    """Show what a target's file says of it."""
    # What was said in front of `show` holds too.
    outer = context.parent.params if context.parent else {}
    recipe, as_json = recipe or outer.get("recipe"), as_json or bool(outer.get("as_json"))
    with working(quiet=as_json) as stage:
        from lepton_compress import target_pages
        from lepton_compress.report import targets as view

        page = target_pages.page(name, _folder(recipe))
        deliver(stage, page, view.show_page, as_json=as_json)


def _folder(recipe: Path | None) -> Path | None:
    return None if recipe is None else recipe.resolve().parent
