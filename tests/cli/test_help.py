import typer
from typer.testing import CliRunner

from ccdgraph.cli import app

GROUP = typer.main.get_command(app)


def commands(group, *path):
    """Every command and every group of commands, but the one on top."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)


def test_the_help_of_every_command_ends_with_an_example_of_it():
    found = dict(commands(GROUP))
    assert len(found) >= 9
    for path, command in found.items():
        example = f"Example: {' '.join(('ccdgraph', *path))}"
        assert (command.epilog or "").startswith(example), path
        shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).stdout
        assert command.epilog in shown


def test_the_help_on_top_ends_with_an_example():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    assert shown.rstrip().splitlines()[-1].strip().startswith("Example: ccdgraph demo")


def test_examples_name_options_that_there_are():
    for path, command in commands(GROUP):
        given = {word for word in command.epilog.split() if word.startswith("--")}
        assert given <= {name for option in command.params for name in option.opts}, path


def test_shells_complete():
    assert {"--install-completion", "--show-completion"} <= {
        name for option in GROUP.params for name in option.opts
    }
